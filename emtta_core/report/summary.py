"""The findings of a run, in sentences."""

from dataclasses import dataclass

from emtta_core.pipeline.run_results import Row
from emtta_core.report.facts import ALL, SOURCE, SPACE, Facts, count, interval, probability, rate, verdict

_TEST = f"test of the mean, Holm-corrected over the domains, p{SPACE}≤{SPACE}0.05"


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of domains by how a method compares with source."""

    lower: int  # domains with a lower WER
    equal: int  # domains with the same WER
    higher: int  # domains with a higher WER
    better: int | None  # domains with a significantly lower WER; None if no tests are stored
    worse: int | None  # domains with a significantly higher WER

    @property
    def domains(self) -> int:
        """Number of domains that can be compared."""
        return self.lower + self.equal + self.higher


@dataclass(frozen=True, slots=True)
class Summary:
    """The top of the page."""

    finding: str  # the method with the lowest rate, and whether it differs significantly from source; or why unknown
    details: tuple[str, ...]  # whether it is the best, on how many domains, and what failed


def lowest_of(facts: Facts) -> str | None:
    """The adapting method that a page presents first: the one with the lowest WER over all domains.

    If none has completed every domain, it is the one with the most complete domains.
    """
    ranked = [str(mean["method"]) for mean in facts.ranked() if mean["method"] != SOURCE]
    if ranked:
        return ranked[0]
    return max(facts.adapting, key=lambda method: int(facts.means[method, ALL]["complete"]), default=None)


def tally(facts: Facts, method: str) -> Tally:
    """Count the domains of a method by how they compare with source; those that cannot be compared are left out."""
    cells = [cell for cell in facts.cells_of(method) if cell["change"] is not None]
    tested = bool(cells) and all(cell["p"] is not None for cell in cells)
    verdicts = [verdict(cell) for cell in cells]
    return Tally(
        lower=sum(cell["change"] < 0 for cell in cells),
        equal=sum(cell["change"] == 0 for cell in cells),
        higher=sum(cell["change"] > 0 for cell in cells),
        better=verdicts.count("better") if tested else None,
        worse=verdicts.count("worse") if tested else None,
    )


def summarise(facts: Facts) -> Summary:
    """Summarise the findings of a run."""
    progress = _progress(facts)
    if not facts.cells:
        return Summary("The plan of this run has no cells.", ())
    if not facts.run["done"]:
        planned = _counted(len(facts.cells), "cell")
        return Summary(f"Nothing is done yet: {planned} planned.", (progress, *facts.samples))
    details = (*_among_all(facts), *_compared(facts), progress, *facts.samples)
    ranked = facts.ranked()
    if not ranked:
        finding = (
            "No method has completed all of its domains yet, so no mean is shown; complete domains are shown below."
        )
        return Summary(finding, details)
    lowest = ranked[0]
    wer = f"{rate(lowest['wer'])} %"
    over = "on its one domain" if lowest["domains"] == 1 else f"averaged over {lowest['domains']} domains"
    has = f"a word error rate of {wer} {over}"
    if len(facts.methods) == 1:
        return Summary(f"{lowest['method']} has {has}.", details)
    if lowest["method"] != SOURCE:
        finding = f"{lowest['method']} has the lowest word error rate, {wer} {over}{_against_source(lowest)}."
    elif len(ranked) > 1:
        finding = f"No method has a lower rate than source, which has {has}."
        finding += f" The next is {ranked[1]['method']}{_against_source(ranked[1])}."
    else:
        finding = f"source has {has}."
    incomplete = len(facts.methods) - len(ranked)
    if incomplete:
        finding += f" {incomplete} of {len(facts.methods)} methods are incomplete."
    return Summary(finding, details)


def _among_all(facts: Facts) -> list[str]:
    # Whether the method with the lowest rate is the best of all; with only two methods, the finding already says so.
    found = facts.best.get(ALL)
    if found is None or len(facts.ranked()) < 3 or not facts.pairs:
        return []
    family = f"Holm-corrected over all pairs of methods, p{SPACE}≤{SPACE}0.05"
    if found["is_best"]:
        return [f"{found['method']} is the best: significantly below each other method ({family})."]
    parts = [
        f"{what} {found[column]}"
        for what, column in (("not distinguishable from", "not_distinguishable"), ("not tested against", "not_tested"))
        if found[column]
    ]
    return [f"Among all methods, {found['method']} is {' and '.join(parts)} ({family})."]


def _against_source(mean: Row) -> str:
    change, p = mean["change"], mean["p"]
    if change is None:
        return ""
    if not change:
        return ", the same as source"
    known = []
    if mean["change_percent"] is not None:
        known.append(f"{abs(mean['change_percent']):.1f} % relative")
    if ends := interval(mean["change_low"], mean["change_high"], signed=True):
        known.append(f"{100 * mean['confidence']:g} % interval {ends} points")
    if p is not None:
        known.append(f"p{SPACE}{'' if p < 0.001 else f'={SPACE}'}{probability(p)}")
    size = f": {rate(abs(change))} points {'below' if change < 0 else 'above'} source"
    if known:
        size += f" ({', '.join(known)})"
    if p is None:
        return f"{size}, not tested"
    return size if verdict(mean) != "unclear" else f"{size}, not distinguishable from source"


def _compared(facts: Facts) -> list[str]:
    # The number of domains on which the method presented first is below, above and equal to source.
    method = lowest_of(facts)
    if method is None:
        return []
    if SOURCE not in facts.methods:
        return ["The run does not include the method source, so the effect of adaptation cannot be measured."]
    found = tally(facts, method)
    if not found.domains:
        return []
    counts = f"lower than source on {found.lower}, higher on {found.higher} and equal on {found.equal}"
    if found.better is None:
        evidence = "No intervals or tests were computed, so these differences may be due to chance."
    elif found.better or found.worse:
        evidence = f"It is significantly better on {found.better} and significantly worse on {found.worse} ({_TEST})."
    else:
        evidence = f"No single domain is distinguishable from source ({_TEST})."
    return [f"Of {_counted(found.domains, 'domain')}, {method} is {counts}. {evidence}"]


def _progress(facts: Facts) -> str:
    # The number of incomplete cells and of utterances in error.
    run, failed = facts.run, sum(cell["state"] == "failed" for cell in facts.cells.values())
    incomplete = run["cells"] - run["complete"]
    if incomplete:
        text = f"{count(incomplete)} of {_counted(run['cells'], 'cell')} are incomplete"
        text += f", {failed} of them failed" if failed else ""
    else:
        text = f"All {_counted(run['cells'], 'cell')} are complete"
    if run["in_error"]:
        text += f"; {count(run['in_error'])} of {_counted(run['done'], 'utterance')} are in error"
        text += " and excluded from every rate"
    elif run["done"]:
        text += f"; none of {_counted(run['done'], 'utterance')} is in error"
    return f"{text}."


def _counted(number: int, thing: str) -> str:
    return f"{count(number)} {thing}{'' if number == 1 else 's'}"
