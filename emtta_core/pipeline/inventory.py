"""What a suite needs before it runs (corpora, noise recordings, the model): where each is, and what is missing."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from emtta_core.audio.noise_file import FOLDER, NoiseFile
from emtta_core.corpora.base import Archive, Availability, State
from emtta_core.corpora.published import Hosted
from emtta_core.corpora.registry import Corpus
from emtta_core.errors import EmttaError, ModelError
from emtta_core.hub import UnreachableHubError, endpoint
from emtta_core.model import hub_model
from emtta_core.model.model_files import TRANSFORMERS, check_complete, folder_of
from emtta_core.pipeline.plan import content_digest, corpus_id
from emtta_core.store import Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.suite import Domain, ModelChoice, Suite

log = logging.getLogger("emtta.pipeline")


def locate(suite: Suite) -> Suite:
    """Resolve the location of each corpus and noise recording of a suite, and pin its model to the local commit.

    Whatever is not available is left unchanged.
    """
    find = cache(_located)
    return suite.model_copy(
        update={
            "domains": tuple(_with_locations(domain, find(domain.corpus)) for domain in suite.domains),
            "model": _pinned(suite.model),
        }
    )


def _pinned(choice: ModelChoice) -> ModelChoice:
    # The model at the commit that is on this machine; a folder, or a model that is not here, stays as it is.
    try:
        if folder_of(choice.name) is not None:
            return choice
    except ModelError:  # loading it reports the error
        return choice
    folder = hub_model.folder_of_commit(choice.name, choice.revision)
    return choice if folder is None else choice.model_copy(update={"revision": folder.name})


def _located(corpus: Corpus) -> Corpus:
    try:
        return corpus.located()
    except EmttaError as error:
        log.info("%s: %s", corpus.name, error)  # the plan reports it again, by domain
        return corpus


def _with_locations(domain: Domain, corpus: Corpus) -> Domain:
    # A domain with the locations found for its corpus and noise recording.
    corruption = domain.corruption
    if isinstance(corruption, NoiseFile):
        corruption = corruption.located()
    return domain.model_copy(update={"corpus": corpus, "corruption": corruption})


NOISE = "https://github.com/microsoft/MS-SNSD"
"""Where the noise recordings can be downloaded."""


MAX_PROBED = 3
"""Recordings of a corpus to try reading before it is reported as available."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a suite needs."""

    kind: str  # `corpus`, `noise` or `model`
    availability: Availability  # whether it is available
    domains: tuple[str, ...]  # the domains that need it
    utterances: int | None = None  # number of utterances used; None if not known before it is fetched
    left_out: int = 0  # number of utterances that are too long
    notes: tuple[str, ...] = ()  # what else is left out
    sample: str | None = None  # which utterances a limit selects, in words; None if all are used
    prepared: int = 0  # number of the domains whose audio is in the store
    seconds: float | None = None  # length of that audio in one domain; None if none is prepared
    # Whether it is read over the network without fetching files, because few of its utterances are used.
    streamed: bool = False

    @property
    def is_missing(self) -> bool:
        """Whether it is neither here nor can be fetched."""
        return self.availability.state == "missing"

    def as_missing(self, reason: str) -> "Need":
        """A copy that is missing for this reason."""
        return replace(self, availability=replace(self.availability, state="missing", size=None, error=reason))

    def as_dict(self) -> dict[str, Any]:
        """The fields, including those of the availability, as plain JSON values."""
        fields: dict[str, Any] = asdict(self)
        availability: dict[str, Any] = fields.pop("availability")
        return availability | fields


def inventory(suite: Suite, store: Store | None) -> list[Need]:
    """What a suite needs, in the suite's order; no audio is fetched.

    Audio already prepared in `store`, if given, counts.
    """
    suite = locate(suite)
    return [*_corpora(suite, store), *_noises(suite.domains), _model(suite.model)]


def to_fetch(needs: Sequence[Need]) -> int:
    """The most bytes that will be fetched from the hub; those shared by several corpora count once."""
    sizes = {
        (need.availability.what, need.availability.where): need.availability.size or 0
        for need in needs
        if need.availability.state == "to fetch" and not need.streamed and not _is_prepared(need)
    }
    return sum(sizes.values())


def _is_prepared(need: Need) -> bool:
    return need.kind == "corpus" and need.prepared == len(need.domains)


def _corpora(suite: Suite, store: Store | None) -> Iterator[Need]:
    content, seconds = cache(content_digest), _seconds(store)
    for corpus in dict.fromkeys(domain.corpus for domain in suite.domains):
        domains = [domain for domain in suite.domains if domain.corpus == corpus]
        need = Need("corpus", corpus.availability(), tuple(domain.name for domain in domains))
        need = _counted(need, corpus, suite.limit)
        found = [identity for domain in domains if (identity := _prepared(domain, suite.limit, store, content))]
        yield replace(need, prepared=len(found), seconds=seconds.get(found[0]) if found else None)


def _counted(need: Need, corpus: Corpus, limit: int | None) -> Need:
    # The need with its corpus's utterances counted, unless counting would fetch the corpus.
    to_fetch_first = need.availability.state == "to fetch"
    if need.is_missing or (to_fetch_first and getattr(corpus, "max_seconds", None)):
        return need
    try:
        counted = corpus.count(limit)
        streamed = isinstance(corpus, Hosted) and to_fetch_first and corpus.is_streamed(limit)
    except EmttaError as error:
        return need.as_missing(str(error))
    if counted.utterances:
        fault = None if to_fetch_first else _fault(corpus)
        if fault is not None:
            return need.as_missing(f"none of the first recordings of {need.availability.what} can be read: {fault}")
        return replace(
            need,
            utterances=counted.utterances,
            left_out=counted.left_out,
            notes=counted.notes,
            sample=counted.sample,
            streamed=streamed,
        )
    short_enough = " that is short enough" if counted.left_out else ""
    return need.as_missing(f"{need.availability.what} has no utterance{short_enough}")


def _fault(corpus: Corpus) -> str | None:
    # Why none of the first recordings of a corpus can be read; None if any can.
    reason = None
    for utterance in islice(corpus.read_all(MAX_PROBED), MAX_PROBED):
        try:
            utterance.read()
        except EmttaError as error:
            reason = reason or str(error)
        else:
            return None
    return reason


def _prepared(domain: Domain, limit: int | None, store: Store | None, content: Callable[[Corpus], str]) -> str | None:
    if store is None:
        return None
    try:
        identity = corpus_id(domain, limit, content)
        return identity if store.prepared(identity) is not None else None
    except EmttaError:  # preparing the audio reports why it cannot be read
        return None


def _seconds(store: Store | None) -> dict[str, float]:
    if store is None:
        return {}
    with Catalogue(store, tables=("prepared",)) as catalogue:
        return dict(catalogue.query("SELECT corpus_id, sum(seconds) FROM prepared GROUP BY corpus_id").rows)


def _noises(domains: Sequence[Domain]) -> Iterator[Need]:
    users: dict[str, list[tuple[str, Availability]]] = {}
    for domain in domains:
        noise = domain.corruption
        if isinstance(noise, NoiseFile) and noise.kind != "gaussian":
            availability = _recording(noise)
            users.setdefault(availability.what, []).append((domain.name, availability))
    for found in users.values():
        yield Need("noise", found[0][1], tuple(name for name, _ in found))


def _recording(noise: NoiseFile) -> Availability:
    what = f"noise {noise.file or noise.kind}"
    licence = "your own" if noise.file else f"see {FOLDER}"
    try:
        noise.determinants(str)
    except EmttaError as error:
        archive = None if noise.file else Archive()  # the repository's page does not state a size
        return Availability(what, "missing", NOISE, licence, error=str(error), subject=error.subject, archive=archive)
    return Availability(what, "here", str(noise.path), licence)


def _model(choice: ModelChoice) -> Need:
    what, licence = f"model {choice.name}", "see its card"
    readable = choice.family in (None, TRANSFORMERS)  # only a plug-in family knows which files it reads
    folder: Path | None = Path(choice.name)
    try:
        folder = folder_of(choice.name)
        if folder is not None:
            if readable:
                check_complete(hub_model.base_of(folder) or folder)
            return Need("model", Availability(what, "here", str(folder), licence), ())
        try:
            offered = hub_model.find_download(choice.name, choice.revision)
            offered.refuse_full_disk()
        except UnreachableHubError:
            known = hub_model.folder_of_commit(choice.name, choice.revision)
            if known is None:
                raise
            if readable:
                check_complete(known)
            return Need("model", Availability(what, "here", str(known), licence), ())
        state: State = "to fetch" if offered.missing else "here"
        fetched = hub_model.folder_of_commit(choice.name, offered.repository.revision) if state == "here" else None
        if fetched is not None and readable:
            check_complete(fetched)
    except EmttaError as error:
        where = endpoint() if folder is None else choice.name
        return Need("model", Availability(what, "missing", where, licence, error=str(error)), ())
    return Need(
        "model", Availability(what, state, offered.repository.url, offered.licence, size=offered.size or None), ()
    )
