"""The suite: a typed file that says what one evaluation is.

A suite names a model, methods and domains; its domains times its methods make the cells of a run. `load_suite` reads
the TOML file (see `docs/suites.md` for its layout), fills in what its domains share, and validates every
field.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from emtta_core.adaptation.options import Options, Trace
from emtta_core.audio.corruption import Corruption, Noise
from emtta_core.audio.mix import SnrConvention
from emtta_core.audio.noise_file import NoiseFile
from emtta_core.corpora.folder import Folder
from emtta_core.corpora.registry import Corpus
from emtta_core.errors import UsageError, unknown
from emtta_core.identity import IDENTITY, RUNTIME, SCORING, Record
from emtta_core.names import check_name
from emtta_core.scoring import DEFAULT, check_scorer
from emtta_core.suite.composed_methods import MethodChoice, without_seed
from emtta_core.suite.file import find, read
from emtta_core.suite.messages import explain
from emtta_core.suite.stream import Stream

COLUMNS = ("all", "method", "change_percent")
"""What the report `methods` calls its own columns, beside one for each group."""


def _name(value: str) -> str:
    try:
        return check_name("the name", value)
    except UsageError as error:
        raise ValueError(str(error)) from error


Name = Annotated[str, Field(max_length=100), AfterValidator(_name)]  # a run's id adds nine characters


def _scorer(value: str) -> str:
    try:
        return check_scorer(value)
    except UsageError as error:
        raise ValueError(str(error)) from error


Scorer = Annotated[str, Field(max_length=200), AfterValidator(_scorer)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]  # of a method's random numbers

Isolation = Literal["process", "none"]
"""Whether cells run in processes of their own."""


class ModelChoice(Record):
    """Which model is adapted, and where it runs."""

    name: Annotated[str, Field(min_length=1), IDENTITY]  # `demo`, a folder, or a name on the Hugging Face hub
    revision: Annotated[str | None, IDENTITY] = None  # of a hub model: a branch, tag or commit
    # How it is read, as `module:object`, or `transformers` for the generic path; left out, by the `model_type` in its
    # config.json.
    family: Annotated[str | None, Field(pattern=r"^(transformers|[\w.]+:\w+)$"), IDENTITY] = None
    # The language that it is given: the corpus's language, or what the unadapted model detects.
    language: Annotated[Literal["corpus", "detect"], IDENTITY] = "corpus"
    # What is done with audio beyond its window: refused, or cut at silence, adapted to piece by piece.
    long_audio: Annotated[Literal["refuse", "cut"], IDENTITY] = "refuse"
    # Of audio, the most tokens of a candidate or a hypothesis; 12 more are always allowed. None: as many as the
    # language needs (`emtta_core.model.tokens`).
    tokens_per_second: Annotated[float | None, Field(gt=0, le=1000, allow_inf_nan=False), IDENTITY] = None
    # Of weights and arithmetic.
    precision: Annotated[Literal["float32", "float64", "tf32", "bf16"], IDENTITY] = "float32"
    device: Annotated[str, RUNTIME] = "auto"  # `auto`, `cpu`, `cuda`, `cuda:1`, …


class Runtime(Record):
    """How a run is carried out; nothing here can change a result."""

    # Utterances adapted side by side, halved where memory does not suffice; `auto`: as many as it holds.
    batch_size: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], RUNTIME] = "auto"
    # What is kept of each step: its hypothesis too, its numbers alone (`metrics`), or nothing.
    trace: Annotated[Trace, RUNTIME] = "hypotheses"
    # Cells at once on each device; left out, two on a CPU and one on a GPU.
    workers: Annotated[int | None, Field(ge=1, le=64), RUNTIME] = None
    prepare_workers: Annotated[int, Field(ge=1, le=64), RUNTIME] = 2  # domains prepared at once
    retries: Annotated[int, Field(ge=0, le=20), RUNTIME] = 2  # further attempts at a task after a transient fault
    # Seconds before the first further attempt; doubled each time.
    retry_delay: Annotated[float, Field(ge=0, le=3600), RUNTIME] = 5.0
    # Whether cells run in processes of their own, so that a crash costs no more than a shard.
    isolation: Annotated[Isolation, RUNTIME] = "process"
    # Seconds after which an attempt at a cell is ended, where cells have processes of their own.
    timeout: Annotated[float | None, Field(gt=0, allow_inf_nan=False), RUNTIME] = None
    # How often the utterances in error are tried again before they are stored as such.
    retry_on_error: Annotated[int, Field(ge=0, le=20), RUNTIME] = 0
    # A cell fails with more utterances in error: a count, or as a fraction below 1 a share. It fails in any case with
    # all of them.
    fail_on_error: Annotated[Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] | None, RUNTIME] = None
    # Whether results of other runs in the store are taken over where they are those of the same work; a night, which
    # is to measure anew, takes none.
    reuse: Annotated[bool, RUNTIME] = True


class Domain(Record):
    """One condition under which the model is tested."""

    name: Annotated[Name, IDENTITY]  # unique in its suite
    group: Annotated[Name, IDENTITY]  # the domains that are averaged together
    corpus: Annotated[Corpus, IDENTITY]  # where its clean speech comes from
    corruption: Annotated[Corruption | None, IDENTITY] = None  # what is done to that speech; none leaves it clean

    def description(self) -> str:
        """Describe the domain: what is done to which speech, for readers of its short name."""
        corpus = self.corpus.model_dump(mode="json")
        fields = (corpus.get(name) for name in ("path", "dataset", "split", "language", "accent", "voices"))
        texts = (" ".join(field) if isinstance(field, list) else field for field in fields if field)
        speech = ", ".join([str(corpus["name"]), *map(str, texts)])
        label = self.corruption.label() if self.corruption is not None else None
        snr_db = getattr(self.corruption, "snr_db", None)
        if label is not None and snr_db is not None and "SNR" not in label:
            label += f" at {snr_db:g} dB SNR"
        return speech if label is None else f"{label}; {speech}"

    @field_validator("group")
    @classmethod
    def _no_column(cls, value: str) -> str:
        if value.lower() in COLUMNS:
            raise ValueError(f"{value!r} is what reports call a column of their own; choose another name")
        return value


class Suite(Record):
    """One evaluation: a model, methods and domains."""

    name: Annotated[Name, RUNTIME]  # names its runs; changes no result
    description: Annotated[str, RUNTIME] = ""  # one line for `emtta suites`
    # At most this many utterances per domain, spread over its speakers.
    limit: Annotated[int | None, Field(ge=1), IDENTITY] = None
    # By name, or composed; in the order in which they are shown.
    methods: Annotated[tuple[MethodChoice, ...], Field(min_length=1), IDENTITY]
    model: Annotated[ModelChoice, IDENTITY]
    adaptation: Annotated[Options, IDENTITY] = Options()
    # Of the methods that draw random numbers, each with a cell of its own in each domain; the other methods have one.
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100), IDENTITY] = (0,)
    # By which hypotheses are compared with references (`emtta_core.scoring.scorer`); figures are by the first.
    scorers: Annotated[tuple[Scorer, ...], Field(min_length=1, max_length=20), SCORING] = (DEFAULT,)
    # Whether rates leave out the utterances in error, or count all of their words as deleted.
    errors: Annotated[Literal["exclude", "delete"], SCORING] = "exclude"
    runtime: Annotated[Runtime, RUNTIME] = Runtime()
    # How long what is adapted is kept, and in which order utterances come; left out, each is an episode of its own.
    stream: Annotated[Stream | None, IDENTITY] = None
    domains: Annotated[tuple[Domain, ...], Field(min_length=1), IDENTITY]

    @field_validator("methods")
    @classmethod
    def _distinct_methods(cls, value: tuple[MethodChoice, ...]) -> tuple[MethodChoice, ...]:
        value = tuple(point for choice in value for point in choice.points())
        names = [choice.name for choice in value]
        _refuse_twice("method", names)
        _refuse_alike("methods", names)
        return value

    @field_validator("adaptation", mode="before")
    @classmethod
    def _no_seed(cls, value: Any) -> Any:
        return without_seed(value)

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        _refuse_twice("seed", [str(seed) for seed in value])
        return value

    @field_validator("scorers")
    @classmethod
    def _distinct_scorers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _refuse_twice("scorer", list(value))
        return value

    @field_validator("domains")
    @classmethod
    def _distinct_domains(cls, value: tuple[Domain, ...]) -> tuple[Domain, ...]:
        # Refuse two domains of one name, and names that some file systems or SQL take for one.
        _refuse_twice("domain", [domain.name for domain in value])
        _refuse_alike("domains", [domain.name for domain in value])
        _refuse_alike("groups", [domain.group for domain in value])
        return value

    @model_validator(mode="after")
    def _streams_can_go(self) -> "Suite":
        for choice in self.methods:
            stream = self.stream_of(choice)
            if stream is None:
                continue
            if choice.method().adapter:
                raise ValueError(
                    f"the method {choice.name!r} is a plug-in with a loop of its own, whose state no stream can keep; "
                    'give it stream = { reset = "utterance" }'
                )
            stream.arranged(self.domains)
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in the order of their first domain."""
        return tuple(dict.fromkeys(domain.group for domain in self.domains))

    def domain(self, name: str) -> Domain:
        """Find the domain called `name`.

        Raises:
            UsageError: where there is none; lists those there are.
        """
        for domain in self.domains:
            if domain.name == name:
                return domain
        raise unknown("domain", name, [domain.name for domain in self.domains])

    def method(self, name: str) -> MethodChoice:
        """Find the method called `name`.

        Raises:
            UsageError: where there is none; lists those there are.
        """
        for choice in self.methods:
            if choice.name == name:
                return choice
        raise unknown("method", name, [choice.name for choice in self.methods])

    def seeds_of(self, choice: MethodChoice) -> tuple[int | None, ...]:
        """The seeds with which a method is evaluated; None alone for one that draws no random numbers."""
        return self.seeds if "seed" in choice.method().options else (None,)

    def stream_of(self, choice: MethodChoice) -> Stream | None:
        """The stream of a method; None for one whose utterances are episodes, as all of one that adapts nothing are."""
        stream = choice.stream or self.stream
        return None if stream is None or stream.reset == "utterance" or not choice.method().adapts else stream

    @property
    def crosses_domains(self) -> bool:
        """Whether what a method adapts goes from one domain to another."""
        return any(stream.crosses for stream in map(self.stream_of, self.methods) if stream is not None)

    def options_of(self, choice: MethodChoice, seed: int | None) -> Options:
        """The options of a method in its cells of a seed."""
        options = choice.adapted(self.adaptation)
        return options if seed is None else options.changed(seed=seed)

    def scored_as(self, other: "Suite") -> "Suite":
        """The suite with the scoring fields of another one."""
        return self.model_copy(update={"scorers": other.scorers, "errors": other.errors})

    def measured_anew(self) -> "Suite":
        """The suite with `runtime.reuse` off: its runs take no result from other runs."""
        return self.model_copy(update={"runtime": self.runtime.model_copy(update={"reuse": False})})

    def to_toml(self) -> str:
        """Write the whole suite as TOML, with each default; `parse_suite` reads it back as it was."""
        data = self.model_dump(mode="json", exclude_none=True, exclude={"adaptation": {"seed"}})
        return "".join(f"{key} = {_toml(value)}\n" for key, value in data.items())


def load_suite(
    name: str,
    *,
    limit: int | None = None,
    snr_convention: SnrConvention | None = None,
    allow_absolute: bool = False,
) -> Suite:
    """Load a shipped suite by its name, or any suite by the path of its `.toml` file.

    Args:
        name: as in `demo`, or as in `suites/mine.toml`.
        limit: at most this many utterances per domain, instead of what the file says.
        snr_convention: how each signal-to-noise ratio is understood, instead of what the file says.
        allow_absolute: let each corpus `folder` read files outside of its folder.

    Raises:
        UsageError: no such suite, or a mistake in it; names the field, its value and what is allowed. Or a convention
            for a suite that adds no noise at a ratio, or files allowed where no corpus is a folder.
    """
    path, text = find(name, Path())
    suite = parse_suite(text, origin=str(path), folder=path.parent)
    if limit is not None:
        suite = _limited(suite, limit)
    if allow_absolute:
        suite = _with_absolute_paths(suite)
    return suite if snr_convention is None else _understood(suite, snr_convention)


def parse_suite(text: str, *, origin: str = "the suite", folder: Path = Path()) -> Suite:
    """Read the suite that a TOML text describes.

    Args:
        text: the file's content.
        origin: what to call it in a refusal.
        folder: relative paths of corpora and of models start here.

    Raises:
        UsageError: a mistake in it; names the field, its value and what is allowed.
    """
    expanded = read(text, origin, folder)
    try:
        # By way of JSON: strict there means that 10 is not "10", and that an array may fill a tuple.
        return Suite.model_validate_json(json.dumps(expanded, default=str), strict=True)
    except ValidationError as error:
        raise UsageError(explain(error, Suite, expanded, origin)) from error


def _limited(suite: Suite, limit: int) -> Suite:
    if limit < 1:
        raise UsageError(f"the limit is {limit}; it is a number of utterances per domain, 1 or more")
    return suite.model_copy(update={"limit": limit})


def _with_absolute_paths(suite: Suite) -> Suite:
    domains = [
        domain.model_copy(update={"corpus": domain.corpus.model_copy(update={"absolute": True})})
        if isinstance(domain.corpus, Folder)
        else domain
        for domain in suite.domains
    ]
    if not any(isinstance(domain.corpus, Folder) for domain in domains):
        raise UsageError(
            "--allow-absolute lets corpora of the kind folder read files outside of their folders, and no domain of "
            f"the suite {suite.name!r} has one; leave it out"
        )
    return suite.model_copy(update={"domains": tuple(domains)})


def _understood(suite: Suite, convention: SnrConvention) -> Suite:
    # The suite with each signal-to-noise ratio understood by `convention`.
    domains = []
    for domain in suite.domains:
        corruption = domain.corruption
        if isinstance(corruption, Noise | NoiseFile):
            corruption = corruption.model_copy(update={"snr_convention": convention})
        domains.append(domain.model_copy(update={"corruption": corruption}))
    if not any(isinstance(domain.corruption, Noise | NoiseFile) for domain in domains):
        raise UsageError(
            f"the SNR convention is {convention!r}, and no domain of the suite {suite.name!r} has the corruption noise "
            "or noise-file, whose ratio it is of; leave it out"
        )
    return suite.model_copy(update={"domains": tuple(domains)})


def _refuse_twice(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each {what} may be named once; named twice: {', '.join(twice)}")


def _refuse_alike(what: str, names: list[str]) -> None:
    # Raise a `ValueError` that shows which of `names` differ in the case of their letters alone.
    for name in names:
        alike = sorted({other for other in names if other.lower() == name.lower()})
        if len(alike) > 1:
            raise ValueError(f"{what} must differ in more than upper and lower case: {', '.join(alike)}")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
