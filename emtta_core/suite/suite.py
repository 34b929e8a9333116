"""The suite: a typed file that defines one evaluation.

A suite names a model, methods and domains; every combination of a domain and a method is a cell of a run. `load_suite`
reads the TOML file (see `docs/suites.md` for its format), fills in what its domains share, and validates every field.
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
"""The names of the columns in the report `methods` that are not a group's."""


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
"""Whether cells run in separate processes."""


class ModelChoice(Record):
    """The model to adapt, and where it runs."""

    name: Annotated[str, Field(min_length=1), IDENTITY]  # `demo`, a folder, or a name on the Hugging Face hub
    revision: Annotated[str | None, IDENTITY] = None  # of a hub model: a branch, tag or commit
    # How it is read, as `module:object`, or `transformers` for the generic path; by default determined by the
    # `model_type` in its config.json.
    family: Annotated[str | None, Field(pattern=r"^(transformers|[\w.]+:\w+)$"), IDENTITY] = None
    # The language in its prompt: the corpus's, or the one detected by the unadapted model.
    language: Annotated[Literal["corpus", "detect"], IDENTITY] = "corpus"
    # How to handle audio longer than its window: refuse it, or cut it at silence and adapt to each piece.
    long_audio: Annotated[Literal["refuse", "cut"], IDENTITY] = "refuse"
    # The maximum number of tokens of a candidate or a hypothesis per second of audio; 12 more are always allowed. None:
    # as many as the language needs (`emtta_core.model.tokens`).
    tokens_per_second: Annotated[float | None, Field(gt=0, le=1000, allow_inf_nan=False), IDENTITY] = None
    # The precision of weights and arithmetic.
    precision: Annotated[Literal["float32", "float64", "tf32", "bf16"], IDENTITY] = "float32"
    device: Annotated[str, RUNTIME] = "auto"  # `auto`, `cpu`, `cuda`, `cuda:1`, …


class Runtime(Record):
    """How a run is executed; nothing here can change a result."""

    # Utterances per batch, halved on running out of memory; `auto`: as many as fit in memory.
    batch_size: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], RUNTIME] = "auto"
    # What is recorded of each step: its numbers and hypothesis, only its numbers (`metrics`), or nothing.
    trace: Annotated[Trace, RUNTIME] = "hypotheses"
    # Concurrent cells on each device; by default two on a CPU and one on a GPU.
    workers: Annotated[int | None, Field(ge=1, le=64), RUNTIME] = None
    prepare_workers: Annotated[int, Field(ge=1, le=64), RUNTIME] = 2  # domains prepared concurrently
    retries: Annotated[int, Field(ge=0, le=20), RUNTIME] = 2  # further attempts at a task after a transient fault
    # Seconds before the first retry; doubled each time.
    retry_delay: Annotated[float, Field(ge=0, le=3600), RUNTIME] = 5.0
    # Whether cells run in separate processes, so that a crash loses no more than a shard.
    isolation: Annotated[Isolation, RUNTIME] = "process"
    # Seconds after which an attempt at a cell is ended, if cells run in separate processes.
    timeout: Annotated[float | None, Field(gt=0, allow_inf_nan=False), RUNTIME] = None
    # How often utterances in error are retried before they are stored as such.
    retry_on_error: Annotated[int, Field(ge=0, le=20), RUNTIME] = 0
    # A cell fails with more utterances in error than this: a count, or below 1 a share. It always fails with all of
    # them in error.
    fail_on_error: Annotated[Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] | None, RUNTIME] = None
    # Whether to reuse results of the same work from other runs in the store; a nightly run, which must measure
    # everything again, reuses none.
    reuse: Annotated[bool, RUNTIME] = True


class Domain(Record):
    """One condition under which the model is tested."""

    name: Annotated[Name, IDENTITY]  # unique in its suite
    group: Annotated[Name, IDENTITY]  # the group of domains that it is averaged with
    corpus: Annotated[Corpus, IDENTITY]  # where its clean speech comes from
    corruption: Annotated[Corruption | None, IDENTITY] = None  # applied to that speech; None leaves it clean

    def description(self) -> str:
        """Describe the domain's corruption and speech, to explain its short name."""
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
            raise ValueError(f"{value!r} is the name of another column in reports; choose a different name")
        return value


class Suite(Record):
    """One evaluation: a model, methods and domains."""

    name: Annotated[Name, RUNTIME]  # names its runs; changes no result
    description: Annotated[str, RUNTIME] = ""  # one line for `emtta suites`
    # At most this many utterances per domain, spread over its speakers.
    limit: Annotated[int | None, Field(ge=1), IDENTITY] = None
    # By name, or composed; in display order.
    methods: Annotated[tuple[MethodChoice, ...], Field(min_length=1), IDENTITY]
    model: Annotated[ModelChoice, IDENTITY]
    adaptation: Annotated[Options, IDENTITY] = Options()
    # Seeds of the methods that draw random numbers, with one cell per seed and domain; others have one per domain.
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100), IDENTITY] = (0,)
    # How hypotheses are compared with references (`emtta_core.scoring.scorer`); figures use the first.
    scorers: Annotated[tuple[Scorer, ...], Field(min_length=1, max_length=20), SCORING] = (DEFAULT,)
    # Whether rates exclude utterances in error, or count all of their words as deleted.
    errors: Annotated[Literal["exclude", "delete"], SCORING] = "exclude"
    runtime: Annotated[Runtime, RUNTIME] = Runtime()
    # How long adaptation is kept, and the order of utterances; by default each utterance is a separate episode.
    stream: Annotated[Stream | None, IDENTITY] = None
    domains: Annotated[tuple[Domain, ...], Field(min_length=1), IDENTITY]

    @field_validator("methods")
    @classmethod
    def _distinct_methods(cls, value: tuple[MethodChoice, ...]) -> tuple[MethodChoice, ...]:
        value = tuple(point for choice in value for point in choice.points())
        names = [choice.name for choice in value]
        _refuse_duplicates("method", names)
        _refuse_similar("methods", names)
        return value

    @field_validator("adaptation", mode="before")
    @classmethod
    def _no_seed(cls, value: Any) -> Any:
        return without_seed(value)

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        _refuse_duplicates("seed", [str(seed) for seed in value])
        return value

    @field_validator("scorers")
    @classmethod
    def _distinct_scorers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _refuse_duplicates("scorer", list(value))
        return value

    @field_validator("domains")
    @classmethod
    def _distinct_domains(cls, value: tuple[Domain, ...]) -> tuple[Domain, ...]:
        # Refuse two domains with the same name, and names that some file systems or SQL consider equal.
        _refuse_duplicates("domain", [domain.name for domain in value])
        _refuse_similar("domains", [domain.name for domain in value])
        _refuse_similar("groups", [domain.group for domain in value])
        return value

    @model_validator(mode="after")
    def _check_streams(self) -> "Suite":
        for choice in self.methods:
            stream = self.stream_of(choice)
            if stream is None:
                continue
            if choice.method().adapter:
                raise ValueError(
                    f"the method {choice.name!r} is a plug-in with its own loop, whose state a stream cannot keep; "
                    'set stream = { reset = "utterance" } for it'
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
            UsageError: if there is none; lists those that exist.
        """
        for domain in self.domains:
            if domain.name == name:
                return domain
        raise unknown("domain", name, [domain.name for domain in self.domains])

    def method(self, name: str) -> MethodChoice:
        """Find the method called `name`.

        Raises:
            UsageError: if there is none; lists those that exist.
        """
        for choice in self.methods:
            if choice.name == name:
                return choice
        raise unknown("method", name, [choice.name for choice in self.methods])

    def seeds_of(self, choice: MethodChoice) -> tuple[int | None, ...]:
        """The seeds with which a method is evaluated; only None for one that draws no random numbers."""
        return self.seeds if "seed" in choice.method().options else (None,)

    def stream_of(self, choice: MethodChoice) -> Stream | None:
        """The stream of a method; None if its utterances are separate episodes, as for methods that adapt nothing."""
        stream = choice.stream or self.stream
        return None if stream is None or stream.reset == "utterance" or not choice.method().adapts else stream

    @property
    def crosses_domains(self) -> bool:
        """Whether any method's adaptation carries over from one domain to another."""
        return any(stream.crosses for stream in map(self.stream_of, self.methods) if stream is not None)

    def options_of(self, choice: MethodChoice, seed: int | None) -> Options:
        """The options of a method in its cells with this seed."""
        options = choice.adapted(self.adaptation)
        return options if seed is None else options.changed(seed=seed)

    def scored_as(self, other: "Suite") -> "Suite":
        """A copy of the suite with the scoring fields of another."""
        return self.model_copy(update={"scorers": other.scorers, "errors": other.errors})

    def without_reuse(self) -> "Suite":
        """A copy of the suite with `runtime.reuse` off, so that its runs reuse no results of other runs."""
        return self.model_copy(update={"runtime": self.runtime.model_copy(update={"reuse": False})})

    def to_toml(self) -> str:
        """Write the whole suite as TOML, including defaults; `parse_suite` restores it exactly."""
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
        name: such as `demo`, or `suites/mine.toml`.
        limit: the maximum number of utterances per domain, overriding the file.
        snr_convention: how signal-to-noise ratios are interpreted, overriding the file.
        allow_absolute: whether each corpus `folder` may read files outside its folder.

    Raises:
        UsageError: no such suite, or a mistake in it; names the field, its value and what is allowed. Also for a
            convention if the suite adds no noise at a ratio, or `allow_absolute` if no corpus is a folder.
    """
    path, text = find(name, Path())
    suite = parse_suite(text, origin=str(path), folder=path.parent)
    if limit is not None:
        suite = _limited(suite, limit)
    if allow_absolute:
        suite = _with_absolute_paths(suite)
    return suite if snr_convention is None else _with_snr_convention(suite, snr_convention)


def parse_suite(text: str, *, origin: str = "the suite", folder: Path = Path()) -> Suite:
    """Read the suite that a TOML text describes.

    Args:
        text: the file's content.
        origin: its name in error messages.
        folder: the base of relative paths of corpora and models.

    Raises:
        UsageError: a mistake in it; names the field, its value and what is allowed.
    """
    expanded = read(text, origin, folder)
    try:
        # Via JSON, where strict means that 10 is not "10", but an array may be a tuple.
        return Suite.model_validate_json(json.dumps(expanded, default=str), strict=True)
    except ValidationError as error:
        raise UsageError(explain(error, Suite, expanded, origin)) from error


def _limited(suite: Suite, limit: int) -> Suite:
    if limit < 1:
        raise UsageError(f"the limit is {limit}; it must be a number of utterances per domain, 1 or more")
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
            "--allow-absolute lets corpora of the kind folder read files outside their folders, but no domain of "
            f"the suite {suite.name!r} has one; omit it"
        )
    return suite.model_copy(update={"domains": tuple(domains)})


def _with_snr_convention(suite: Suite, convention: SnrConvention) -> Suite:
    # The suite with all signal-to-noise ratios interpreted by `convention`.
    domains = []
    for domain in suite.domains:
        corruption = domain.corruption
        if isinstance(corruption, Noise | NoiseFile):
            corruption = corruption.model_copy(update={"snr_convention": convention})
        domains.append(domain.model_copy(update={"corruption": corruption}))
    if not any(isinstance(domain.corruption, Noise | NoiseFile) for domain in domains):
        raise UsageError(
            f"the SNR convention is {convention!r}, but no domain of the suite {suite.name!r} has the corruption noise "
            "or noise-file, to whose ratios it applies; omit it"
        )
    return suite.model_copy(update={"domains": tuple(domains)})


def _refuse_duplicates(what: str, names: list[str]) -> None:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f"each {what} may be named only once; named twice: {', '.join(duplicates)}")


def _refuse_similar(what: str, names: list[str]) -> None:
    # Raise a `ValueError` that lists those of `names` that differ only in case.
    for name in names:
        similar = sorted({other for other in names if other.lower() == name.lower()})
        if len(similar) > 1:
            raise ValueError(f"{what} must differ in more than case: {', '.join(similar)}")


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
