"""The cells of a suite, and the identity of each."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from emtta_core.adaptation import ALGORITHM_VERSION
from emtta_core.adaptation.methods import Method
from emtta_core.adaptation.options import Options
from emtta_core.corpora.base import Count, whisper_code
from emtta_core.corpora.registry import Corpus
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.errors import EmttaError, UsageError
from emtta_core.identity import digest
from emtta_core.model.tokens import tokens_per_second
from emtta_core.names import counted, seed_name
from emtta_core.store import CellKey, PreparedRow
from emtta_core.suite import Domain, ModelChoice, Suite
from emtta_core.suite.composed_methods import MethodChoice

UNAVAILABLE = "unavailable-"
"""Prefix of the identity of audio that was not available when it was planned."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One domain adapted to with one method, and with one seed where the method draws random numbers."""

    domain: str
    group: str
    method: str
    cell_id: str  # identity of its hypotheses, from the recipe and the audio
    corpus_id: str  # identity of its prepared audio
    recipe_id: str  # identity of the processing of each utterance
    utterances: int  # number of utterances
    sample: str | None = None  # which utterances of its corpus a limit selects, in words; None if all are used
    seed: int | None = None  # seed of its random numbers; None: its method draws none
    seeds: int = 1  # number of cells of its method in its domain, one per seed

    @property
    def available(self) -> bool:
        """Whether its audio was available when it was planned."""
        return not self.corpus_id.startswith(UNAVAILABLE)

    @property
    def name(self) -> str:
        """Its name in messages: `domain/method`, with its seed if the method has several."""
        return f"{self.domain}/{self.method}" + (f", seed {self.seed}" if self.seeds > 1 else "")

    def key(self, run_id: str) -> CellKey:
        """The key of its rows in the store, as a cell of a run."""
        return CellKey(run_id, self.domain, self.method, self.seed)

    @property
    def seed_name(self) -> str:
        """Its seed as given on the command line: a number, or `none`."""
        return seed_name(self.seed)


PREPARE_VERSION = 4
"""Incremented whenever the same corpus and corruption would be prepared as different samples or rows."""

INPUT_SETTINGS = ("family", "language", "long_audio", "tokens_per_second")
"""The settings of how speech is fed to a model; part of a recipe's identity."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The cells of a suite, domain by domain."""

    plan_id: str  # the identity of all cells together
    model_digest: str  # digest of the model they adapt
    cells: tuple[Cell, ...]  # in order
    # Why the audio of a domain is not available, by the domain's name; its cells will fail.
    unavailable: Mapping[str, str] = field(default_factory=dict)
    # The number of utterances left out as too long, by the domain's name.
    left_out: Mapping[str, int] = field(default_factory=dict)
    # What else of a corpus is left out, by the domain's name.
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes for the person starting the run: what will fail, and what is left out."""
        fail = [
            f"{domains} cannot be prepared: {reason}" for reason, domains in _domains_by_text(self.unavailable.items())
        ]
        if fail:
            fail.append(f"the other domains go on; the cells of {', '.join(self.unavailable)} will fail")
        long = [
            (domain, f"without {counted(count, 'utterance')} longer than max_seconds")
            for domain, count in self.left_out.items()
        ]
        notes = [(domain, note) for domain, found in self.notes.items() for note in found]
        others = [f"{domains}: {text}" for text, domains in _domains_by_text([*long, *notes])]
        return (*fail, *samples(self.cells), *others)


def _domains_by_text(notes: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    # Each text once, with the domains it applies to, in words.
    found: dict[str, list[str]] = {}
    for domain, text in notes:
        found.setdefault(text, []).append(domain)
    return [(text, f"domain{'s' * (len(names) > 1)} {', '.join(names)}") for text, names in found.items()]


def samples(cells: Sequence[Cell]) -> list[str]:
    """Which utterances a limit selects: one sentence per selection, with the domains it applies to."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.sample is not None:
            found.setdefault(cell.sample, {})[cell.domain] = None
    return [f"{sample} (domain{'s' * (len(domains) > 1)} {', '.join(domains)})" for sample, domains in found.items()]


@dataclass(frozen=True, slots=True)
class Audio:
    """The planned audio of a domain."""

    corpus_id: str  # its identity
    utterances: int  # number of utterances
    left_out: int = 0  # number of utterances that are too long
    notes: tuple[str, ...] = ()  # what else of its corpus is left out
    sample: str | None = None  # as in `Cell`
    error: EmttaError | None = None  # why it is not available; the identity then records only that


def plan(suite: Suite, model_digest: str) -> Plan:
    """The cells of a suite for a model whose weights have this digest.

    A domain whose audio is not available is planned all the same, so that the other domains can run.

    Raises:
        EmttaError: the audio of no domain is available (the reason given is the first domain's), or that of a domain
            in a stream is not, or a plug-in cannot be imported.
    """
    for choice in suite.methods:
        choice.method().check()
    audio = plan_audio(suite)
    errors = {name: found.error for name, found in audio.items() if found.error is not None}
    if len(errors) == len(audio):
        raise next(iter(errors.values()))
    if errors and suite.crosses_domains:
        name, error = next(iter(errors.items()))
        raise UsageError(
            f"the domain {name!r} is not available, and a stream without it would be a different stream: {error}; fix "
            'that, leave the domain out of the suite, or choose reset = "domain"'
        )
    cells = [cell for domain in suite.domains for cell in cells_of(domain, suite, model_digest, audio)]
    unavailable = {name: str(found.error) for name, found in audio.items() if found.error is not None}
    left_out = {name: found.left_out for name, found in audio.items() if found.left_out}
    notes = {name: found.notes for name, found in audio.items() if found.notes}
    return Plan(plan_id_of(cells), model_digest, tuple(cells), unavailable, left_out, notes)


def cells_of(domain: Domain, suite: Suite, model_digest: str, audio: Mapping[str, Audio]) -> list[Cell]:
    """The cells of a domain, method by method: one per seed, or a single one if no random numbers are drawn.

    `audio` holds, by name, that of the domain and of the domains that precede it in a stream.
    """
    corpora = {name: found.corpus_id for name, found in audio.items()}
    own_audio = audio[domain.name]

    def cell(choice: MethodChoice, seed: int | None, seeds: int) -> Cell:
        recipe = recipe_of(suite, choice, seed, domain, model_digest, corpora)
        audio_fields = (own_audio.corpus_id, recipe, own_audio.utterances, own_audio.sample)
        identity = cell_id(recipe, own_audio.corpus_id)
        return Cell(domain.name, domain.group, choice.name, identity, *audio_fields, seed, seeds)

    choices = [(choice, suite.seeds_of(choice)) for choice in suite.methods]
    return [cell(choice, seed, len(seeds)) for choice, seeds in choices for seed in seeds]


def recipe_of(
    suite: Suite,
    choice: MethodChoice,
    seed: int | None,
    domain: Domain,
    model_digest: str,
    corpora: Mapping[str, str],
) -> str:
    """The identity of the processing of each utterance in a cell of a suite.

    In a stream, the processing depends on all that came before: the identity covers the stream and the corpora up to
    the cell's own (by name in `corpora`), including their numbers of utterances. So single utterances of a stream
    never match those of another run, and a whole cell matches only after the same beginning.
    """
    model = with_token_rate(suite.model, domain.corpus)
    recipe = recipe_id(choice.method(), suite.options_of(choice, seed), model, model_digest)
    stream = suite.stream_of(choice)
    if stream is None:
        return recipe
    names = [other.name for other in stream.arranged(suite.domains)] if stream.crosses else [domain.name]
    index = names.index(domain.name)
    preceding = names if stream.order == "mixed" else names[: index + 1]
    corpus_ids = [corpora[name] for name in preceding]
    return digest({"recipe": recipe, "stream": stream.identity(), "corpora": corpus_ids, "place": index})


def plan_id_of(cells: Sequence[Cell]) -> str:
    """The identity of the plan with these cells."""
    return digest([[cell.domain, cell.group, cell.method, cell.cell_id] for cell in cells])


def plan_audio(suite: Suite) -> dict[str, Audio]:
    """The planned audio of each domain, by the domain's name, or why it is not available."""
    content = cache(content_digest)  # for this plan only: a folder may have changed by the next one
    counted = cache(lambda corpus: corpus.count(suite.limit))
    return {domain.name: audio_of(domain, suite.limit, content, counted) for domain in suite.domains}


def audio_of(
    domain: Domain, limit: int | None, content: Callable[[Corpus], str], counted: Callable[[Corpus], Count]
) -> Audio:
    """The planned audio of a domain, or why it is not available.

    Args:
        domain: the domain.
        limit: the most utterances to use, spread over the speakers.
        content: returns the digest of a corpus.
        counted: returns how much of it is used.
    """
    try:
        count = counted(domain.corpus)
        if not count.utterances:
            reason = (
                f"that is short enough: {count.left_out} are longer than max_seconds; raise it"
                if count.left_out
                else "to adapt to; check what it contains"
            )
            raise UsageError(
                f"the corpus of domain {domain.name!r} has no utterance {reason}, or leave the domain out of the suite"
            )
        return Audio(corpus_id(domain, limit, content), count.utterances, count.left_out, count.notes, count.sample)
    except EmttaError as error:
        return Audio(f"{UNAVAILABLE}{digest({'domain': domain.identity(), 'limit': limit})}", 1, error=error)


def content_digest(corpus: Corpus) -> str:
    """The digest of a corpus's content; for a folder, changed audio is read to compute it."""
    return corpus.content_digest()


def corpus_id(domain: Domain, limit: int | None, content: Callable[[Corpus], str] = content_digest) -> str:
    """The identity of a domain's prepared audio: neither its name nor its group is part of it.

    Args:
        domain: the domain.
        limit: the most utterances to use, spread over the speakers.
        content: returns the digest of a corpus; a cached function avoids reading a folder once per domain.
    """
    corruption = domain.corruption
    return digest(
        {
            "prepare_version": PREPARE_VERSION,
            "corpus": domain.corpus.identity(),
            "content": content(domain.corpus),
            "limit": limit,
            "corruption": None
            if corruption is None
            else corruption.determinants(lambda: content(Synthetic(language="en"))),  # who murmurs in babble
        }
    )


def with_token_rate(model: ModelChoice, corpus: Corpus | None = None) -> ModelChoice:
    """The model of a suite with the tokens per second that a corpus's language needs, unless the suite sets them.

    The number is part of a cell's identity, so a language that needs only the usual number changes nothing.
    """
    if model.tokens_per_second is not None:
        return model
    language = whisper_code(getattr(corpus, "language", "en"))
    return model.model_copy(update={"tokens_per_second": tokens_per_second(language)})


def cell_id(recipe: str, corpus_id: str) -> str:
    """The identity of a cell: the same recipe for the same audio gives the same hypotheses."""
    return digest({"recipe": recipe, "corpus": corpus_id})


def utterance_key(recipe: str, row: PreparedRow) -> str:
    """The identity of a recipe's result for a prepared utterance."""
    audio = None if row.audio is None else hashlib.sha256(row.audio.bytes).hexdigest()
    return digest([recipe, row.utterance_id, audio, row.text, row.language, row.speaker])


def recipe_id(method: Method, options: Options, model: ModelChoice, model_digest: str) -> str:
    """The identity of the processing of each utterance: the method, its options, the model and how it is fed."""
    rated = with_token_rate(model)
    return digest(
        {
            "algorithm_version": ALGORITHM_VERSION,
            "model": model_digest,
            "precision": model.precision,
            "method": method.identity(),
            "options": {option: getattr(options, option) for option in method.options},
            "fed": {name: getattr(rated, name) for name in INPUT_SETTINGS},
        }
    )
