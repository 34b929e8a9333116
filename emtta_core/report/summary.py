"""What a run found, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from emtta_core.report.facts import (
    ALL,
    SOURCE,
    SPACE,
    Cell,
    Facts,
    Standing,
    count,
    interval,
    probability,
    rate,
    verdict,
)

_TEST = f"sign-flip test, Holm-corrected over the domains, p{SPACE}≤{SPACE}0.05"


@dataclass(frozen=True, slots=True)
class Tally:
    """How a method compares with source, domain by domain."""

    lower: int  # domains on which its WER is lower
    equal: int  # on which it is the same
    higher: int  # on which it is higher
    better: int | None  # on which it is significantly lower; None where no tests are stored
    worse: int | None  # on which it is significantly higher

    @property
    def domains(self) -> int:
        """Domains that can be compared."""
        return self.lower + self.equal + self.higher


@dataclass(frozen=True, slots=True)
class Summary:
    """The top of the page."""

    finding: str  # which method has the lowest rate, and whether a test tells it from source; or why that is not known
    details: tuple[str, ...]  # on how many domains, and what failed


def best_of(facts: Facts) -> str | None:
    """Return the adapting method that a page presents first: the one with the lowest WER over all domains.

    If none has completed every domain, it is the one with the most complete domains.
    """
    ranked = [standing.method for standing in facts.ranked() if standing.method != SOURCE]
    if ranked:
        return ranked[0]
    done = [facts.standings[method, ALL] for method in facts.adapting if (method, ALL) in facts.standings]
    return max(done, key=lambda standing: standing.complete).method if done else None


def tally(facts: Facts, method: str) -> Tally:
    """Count the domains of a method by how they compare with source; those that cannot be compared are left out."""
    figures = [cell.figure for cell in _of(facts, method) if cell.figure.change is not None]
    changes = [figure.change for figure in figures if figure.change is not None]
    tested = bool(figures) and all(figure.p is not None for figure in figures)
    found = [verdict(figure) for figure in figures]
    return Tally(
        lower=sum(change < 0 for change in changes),
        equal=sum(change == 0 for change in changes),
        higher=sum(change > 0 for change in changes),
        better=found.count("better") if tested else None,
        worse=found.count("worse") if tested else None,
    )


def summarise(facts: Facts) -> Summary:
    """Return what a run found."""
    if not facts.cells:
        return Summary("The plan of this run holds no cell.", ())
    details = [*_compared(facts), _failed(facts)]
    ranked = facts.ranked()
    if not any(cell.done for cell in facts.cells.values()):
        return Summary(f"Nothing is done yet: {_count(len(facts.cells), 'cell')} planned.", (_failed(facts),))
    if not ranked:
        return Summary(
            "No method has completed all of its domains yet, so no mean is shown; complete domains are shown below.",
            tuple(details),
        )
    best = ranked[0]
    domains = "its one domain" if best.domains == 1 else f"{best.domains} domains"
    wer = f"{rate(best.figure.wer)} %"
    mean = f"a word error rate of {wer}"
    over = f"on {domains}" if best.domains == 1 else f"averaged over {domains}"
    if len(facts.methods) == 1:
        return Summary(f"{best.method} has {mean} {over}.", tuple(details))
    missing = len(facts.methods) - len(ranked)
    rivals = f" {missing} of {len(facts.methods)} methods are incomplete." if missing else ""
    if best.method == SOURCE and len(ranked) > 1:
        finding = f"No method has a lower rate than source, which has {mean} {over}.{_next(ranked)}{rivals}"
    elif best.method == SOURCE:
        finding = f"source has {mean} {over}.{rivals}"
    else:
        finding = f"{best.method} has the lowest word error rate, {wer} {over}{_against_source(best)}.{rivals}"
    return Summary(finding, tuple(details))


def _next(ranked: Sequence[Standing]) -> str:
    second = ranked[1]
    return f" The next is {second.method}{_against_source(second)}."


def _against_source(standing: Standing) -> str:
    found = standing.figure
    if found.change is None:
        return ""
    if not found.change:
        return ", the same as source"
    side = "below" if found.change < 0 else "above"
    size = f": {rate(abs(found.change))} points {side} source"
    known = [f"{abs(found.change_percent):.1f} % relative"] if found.change_percent is not None else []
    within = interval(found.change_low, found.change_high, signed=True)
    if within:
        known.append(f"{_confidence(found.confidence)} interval {within} points")
    if found.p is not None:
        known.append(
            f"p{SPACE}{probability(found.p)}" if found.p < 0.001 else f"p{SPACE}={SPACE}{probability(found.p)}"
        )
    size = f"{size} ({', '.join(known)})" if known else size
    if found.p is None:
        return f"{size}, not tested"
    return size if verdict(found) != "unclear" else f"{size}, not distinguishable from source"


def _compared(facts: Facts) -> list[str]:
    # On how many domains the method presented first is below, above and equal to source.
    method = best_of(facts)
    if method is None:
        return []
    if SOURCE not in facts.methods:
        return ["The run does not include the method source, so the effect of adaptation cannot be measured."]
    found = tally(facts, method)
    if not found.domains:
        return []
    counts = f"lower than source on {found.lower}, higher on {found.higher} and equal on {found.equal}"
    if found.better is None or found.worse is None:
        sure = "No intervals or tests were computed, so these differences may be due to chance."
    elif found.better or found.worse:
        sure = f"It is significantly better on {found.better} and significantly worse on {found.worse} ({_TEST})."
    else:
        sure = f"No single domain is distinguishable from source ({_TEST})."
    return [f"Of {_count(found.domains, 'domain')}, {method} is {counts}. {sure}"]


def _failed(facts: Facts) -> str:
    cells = list(facts.cells.values())
    lacking = [cell for cell in cells if cell.state != "complete"]
    in_error, done = sum(cell.in_error for cell in cells), sum(cell.done for cell in cells)
    if lacking:
        failed = sum(cell.state == "failed" for cell in lacking)
        among = f", {failed} of them failed" if failed else ""
        text = f"{count(len(lacking))} of {_count(len(cells), 'cell')} are incomplete{among}"
    else:
        text = f"All {_count(len(cells), 'cell')} are complete"
    if in_error:
        text += f"; {count(in_error)} of {_count(done, 'utterance')} are in error and excluded from every rate"
    elif done:
        text += f"; none of {_count(done, 'utterance')} is in error"
    return f"{text}."


def _of(facts: Facts, method: str) -> list[Cell]:
    return [cell for (_, name), cell in facts.cells.items() if name == method]


def _count(number: int, thing: str) -> str:
    return f"{count(number)} {thing}{'' if number == 1 else 's'}"


def _confidence(value: float | None) -> str:
    return f"{100 * (value or 0.95):g} %"
