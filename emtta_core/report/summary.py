"""What a run found, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from emtta_core.report.facts import ALL, SOURCE, Cell, Facts, Standing
from emtta_core.report.numbers import SPACE, count, interval, rate, verdict

_TEST = f"sign-flip test, p{SPACE}≤{SPACE}0.05 by Holm over the domains"


@dataclass(frozen=True, slots=True)
class Tally:
    """How a method compares with source, domain by domain.

    Attributes:
        lower: domains on which its WER is lower.
        equal: on which it is the same.
        higher: on which it is higher.
        better: on which it is lower by more than chance; None where no tests are stored.
        worse: on which it is higher by more than chance.
    """

    lower: int
    equal: int
    higher: int
    better: int | None
    worse: int | None

    @property
    def domains(self) -> int:
        """Domains that can be compared."""
        return self.lower + self.equal + self.higher


@dataclass(frozen=True, slots=True)
class Summary:
    """The top of the page.

    Attributes:
        finding: which method is best, and by how much; or why that cannot be said.
        details: on how many domains, and what failed.
    """

    finding: str
    details: tuple[str, ...]


def best_of(facts: Facts) -> str | None:
    """Return the method of which a page says most: that of the lowest WER over all domains, source left out.

    Where none has every domain, it is the one with the most domains.
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
            "No method has all of its domains yet, so that no mean over them is shown; "
            "what is there is shown domain by domain.",
            tuple(details),
        )
    best = ranked[0]
    domains = "its one domain" if best.domains == 1 else f"{best.domains} domains"
    mean = f"a word error rate of {rate(best.figure.wer)} %"
    over = f"on {domains}" if best.domains == 1 else f"in the mean over {domains}"
    if len(facts.methods) == 1:
        return Summary(f"{best.method} has {mean} {over}.", tuple(details))
    rivals = "" if len(ranked) == len(facts.methods) else f" Of {len(facts.methods)} methods, {len(ranked)} have one."
    if best.method == SOURCE and len(ranked) > 1:
        finding = f"No method is better than source, which has {mean} {over}.{_next(ranked)}{rivals}"
    else:
        finding = f"{best.method} is best, with {mean} {over}{_against_source(best)}.{rivals}"
    return Summary(finding, tuple(details))


def _next(ranked: Sequence[Standing]) -> str:
    second = ranked[1]
    return f" The next is {second.method}{_against_source(second)}."


def _against_source(standing: Standing) -> str:
    """Return how a method compares with source, to follow its figure."""
    found = standing.figure
    if found.change is None:
        return ""
    if not found.change:
        return ", as source has"
    side = "below" if found.change < 0 else "above"
    size = f": {rate(abs(found.change))} points {side} source"
    known = [f"{abs(found.change_percent):.1f} % relative"] if found.change_percent is not None else []
    within = interval(found.change_low, found.change_high, signed=True)
    if within:
        known.append(f"{_confidence(found.confidence)} interval {within} points")
    return f"{size} ({', '.join(known)})" if known else size


def _compared(facts: Facts) -> list[str]:
    """Return on how many domains the most telling method is better and worse than source."""
    method = best_of(facts)
    if method is None:
        return []
    if SOURCE not in facts.methods:
        return ["The run has no method source, so that nothing says what adaptation changed over a whole domain."]
    found = tally(facts, method)
    if not found.domains:
        return []
    counts = f"lower than source on {found.lower}, higher on {found.higher} and equal on {found.equal}"
    if found.better is None or found.worse is None:
        sure = "The run has no intervals or tests, so that single domains may be chance."
    elif found.better or found.worse:
        sure = f"Taken alone, it is significantly better on {found.better} and worse on {found.worse} ({_TEST})."
    else:
        sure = f"No domain is significant by itself ({_TEST})."
    return [f"Of {_count(found.domains, 'domain')}, {method} is {counts}. {sure}"]


def _failed(facts: Facts) -> str:
    """Say what is incomplete or in error."""
    cells = list(facts.cells.values())
    lacking = [cell for cell in cells if cell.state != "complete"]
    in_error, done = sum(cell.in_error for cell in cells), sum(cell.done for cell in cells)
    if lacking:
        failed = sum(cell.state == "failed" for cell in lacking)
        among = f", {failed} of them failed" if failed else ""
        said = f"{count(len(lacking))} of {_count(len(cells), 'cell')} are not complete{among}"
    else:
        said = f"All {_count(len(cells), 'cell')} are complete"
    if in_error:
        said += f"; {count(in_error)} of {_count(done, 'utterance')} are in error, and in no rate"
    elif done:
        said += f"; none of {_count(done, 'utterance')} is in error"
    return f"{said}."


def _of(facts: Facts, method: str) -> list[Cell]:
    return [cell for (_, name), cell in facts.cells.items() if name == method]


def _count(number: int, thing: str) -> str:
    return f"{count(number)} {thing}{'' if number == 1 else 's'}"


def _confidence(value: float | None) -> str:
    return f"{100 * (value or 0.95):g} %"
