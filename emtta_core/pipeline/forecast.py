"""How long the adaptation that is missing will take, estimated from what the same work took before."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from emtta_core.adaptation.options import Options
from emtta_core.errors import EmttaError
from emtta_core.pipeline.plan import Cell, recipe_id
from emtta_core.store import Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.suite import Suite, parse_suite

WEIGHS = ("steps", "candidates", "beams", "redraw", "early_stop", "adapt_above")
"""The options by which an utterance takes longer."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What an utterance of a method took in an earlier run."""

    run_id: str  # the run
    device: str  # where it ran, as `cuda:0`; more than one with commas between
    seconds: float  # wall seconds an utterance, its share of its batch: the mean over all domains
    by_domain: Mapping[str, float]  # the same of each domain that it had

    def of(self, domain: str) -> float:
        """The wall seconds of an utterance of a domain; the mean of all, where the run did not have it."""
        return self.by_domain.get(domain, self.seconds)


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long work will take on one device, models' loading and audio's preparation not counted."""

    seconds: float  # wall seconds, of the methods that have a pace
    paces: Mapping[str, Pace]  # by the name of the method
    unknown: tuple[str, ...]  # the methods that no earlier run did, with this model and these options


def forecast(store: Store | None, suite: Suite, todo: Mapping[Cell, int]) -> Forecast:
    """How long so many utterances of each cell will take.

    Args:
        store: where earlier runs are; None where there is none yet.
        suite: what the cells are of. Of each method, the newest run counts that did the same to a model of the same
            name, with options that take as long, whatever its domains and whatever the method is called there.
        todo: how many utterances of each cell.
    """
    methods = dict.fromkeys(cell.method for cell in todo)
    paces = {} if store is None else _paces(store, suite, methods)
    seconds = sum(count * paces[cell.method].of(cell.domain) for cell, count in todo.items() if cell.method in paces)
    return Forecast(seconds, paces, tuple(name for name in methods if name not in paces))


def _paces(store: Store, suite: Suite, methods: Mapping[str, None]) -> dict[str, Pace]:
    works = {name: work for name, work in _works(suite).items() if name in methods}
    query = "SELECT run_id, suite_toml FROM raw.runs WHERE model = $model ORDER BY created_at DESC"
    with Catalogue(store) as catalogue:
        runs = catalogue.query(query, {"model": suite.model.name}).rows
    paces: dict[str, Pace] = {}
    for run_id, suite_toml in runs:
        if len(paces) == len(works):
            break
        try:
            there = _works(parse_suite(suite_toml, origin=f"the suite of run {run_id}"))
        except EmttaError:  # of a release with other fields: another run may do
            continue
        names = {work: name for name, work in there.items()}
        wanted = {name: names[work] for name, work in works.items() if name not in paces and work in names}
        found = _measured(store, run_id) if wanted else {}
        paces |= {name: found[there] for name, there in wanted.items() if there in found}
    return paces


def _works(suite: Suite) -> dict[str, str]:
    # What each method of a suite does to an utterance: by its name, a digest of all that takes time.
    return {
        choice.name: recipe_id(
            replace(choice.method(), name=""),
            Options(**{name: getattr(choice.adapted(suite.adaptation), name) for name in WEIGHS}),
            suite.model,
            suite.model.name,
        )
        + (" in a stream" if suite.stream_of(choice) else "")
        for choice in suite.methods
    }


def _measured(store: Store, run_id: str) -> dict[str, Pace]:
    query = """
        SELECT method, device, domain, avg(seconds) AS seconds, count(*) AS utterances
        FROM utterances
        INNER JOIN (
            SELECT method, string_agg(DISTINCT device, ', ' ORDER BY device) AS device FROM attempts GROUP BY method
        ) USING (method)
        WHERE error IS NULL AND seconds IS NOT NULL
        GROUP BY ALL
        ORDER BY ALL
    """
    with Catalogue(store, run_id=run_id) as catalogue:
        rows = catalogue.query(query).rows
    paces = {}
    for method, device in dict.fromkeys((method, device) for method, device, *_ in rows):
        domains = [rest for name, _, *rest in rows if name == method]
        total = sum(seconds * count for _, seconds, count in domains)
        mean = total / sum(count for *_, count in domains)
        paces[method] = Pace(run_id, device, mean, {domain: seconds for domain, seconds, _ in domains})
    return paces
