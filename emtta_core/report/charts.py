"""The charts of the page, as Vega-Lite (https://vega.github.io/vega-lite/) specifications.

Colours are the page's own variables (`var(--…)`), so that one picture serves the light and the dark page. Each mark has
a `said`: the number of its `Mark`, from which `emtta_core.report.picture` makes its tooltip and what the page filters.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emtta_core.report.facts import (
    ALL,
    NOTHING,
    SOURCE,
    Cell,
    Facts,
    Figure,
    interval,
    points,
    rate,
    signed_percent,
    verdict,
)

Spec = dict[str, Any]

MOST_DOMAINS = 60
"""Domains that a chart shows; of more, those with the largest changes."""

STEPS_OF_COLOUR = (-10.0, -5.0, -1.0, 1.0, 5.0, 10.0)
"""Changes of WER, points, at which the heat map's colour changes."""

_NAMES = {"domain": False, "ticks": False, "labelPadding": 6, "title": None, "grid": False}
"""The axis of names on the left of a chart."""

_POINT = {"type": "point", "filled": True, "size": 60, "opacity": 1}
_SAID = {"field": "said", "type": "nominal"}
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
_VERDICTS = ("better", "worse", "unclear")


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark stands for: the text of its tooltip, and what it belongs to, where it is filtered."""

    text: str
    group: str = ""
    method: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart to be drawn."""

    name: str  # of the chart on its page, as a part of an id
    title: str  # what it shows, for who cannot see it
    description: str  # how to read it, likewise
    spec: Spec  # in Vega-Lite
    marks: list[Mark] = field(default_factory=list)  # what its marks stand for, by the number in their `said`


def leaderboard(facts: Facts, group: str) -> Chart | None:
    """Return WER of each method over a group, with intervals; None where it has no figure.

    The scale is that of all groups, so that their charts can be compared.
    """
    marks: list[Mark] = []
    rows: list[Spec] = []
    for method in facts.methods:
        standing = facts.standings.get((method, group))
        if standing is not None and standing.figure.wer is not None:
            found = standing.figure
            text = f"{method}, {group}: {rate(found.wer)} %{_within(found.low, found.high)}"
            known = {"wer": found.wer, "low": found.low, "high": found.high}
            rows.append({"method": method} | known | _said(marks, text, "" if group == ALL else group, method))
    if not rows:
        return None
    figures = [standing.figure for standing in facts.standings.values()]
    ends = [end for found in figures for end in (found.wer, found.low, found.high) if end is not None]
    room = 0.05 * (max(ends) - min(ends)) or 1.0
    scale = {"domain": [max(0.0, min(ends) - room), max(ends) + room], "nice": False}
    axis = {"tickCount": 5}
    colour = {"field": "method", "type": "nominal", "scale": _palette(facts), "legend": None, "sort": None}
    layers: list[Spec] = [{"mark": _POINT, "encoding": {"color": colour, "description": _SAID}}]
    if any(row["low"] is not None for row in rows):
        layers.insert(0, _intervals(colour))
    spec: Spec = {
        "data": {"values": rows},
        "width": _width(facts.methods),
        "height": {"step": 20},
        "encoding": {
            "x": {"field": "wer", "type": "quantitative", "title": None, "scale": scale, "axis": axis},
            "y": {"field": "method", "type": "nominal", "sort": list(facts.methods), "axis": _NAMES},
        },
        "layer": layers,
    }
    title = f"Word error rate of each method, {group}"
    return Chart(f"leaderboard-{group}", title, "In percent; further left is better.", _whole(spec), marks)


def heat_map(facts: Facts) -> Chart | None:
    """Return WER of each domain and method, coloured by the change against source; None where there is no figure."""
    marks: list[Mark] = []
    domains = shown_domains(facts)
    rows: list[Spec] = []
    for domain in domains:
        for method in facts.methods:
            cell = facts.cells.get((domain, method))
            if cell is None:
                continue
            wer, change = cell.figure.wer, cell.figure.change
            text = f"{domain}, {method}: " + (cell.state if wer is None else f"{rate(wer)} %{_against(cell.figure)}")
            level = "none" if wer is None else "0" if change is None else str(_level(change))
            rows.append(
                {"group": cell.group, "domain": domain, "method": method, "level": level}
                | {"wer": NOTHING if wer is None else f"{wer:.1f}"}
                | _said(marks, text, cell.group, method)
            )
    if all(row["wer"] == NOTHING for row in rows):
        return None
    levels = [str(level) for level in range(-3, 4)]
    ramp = {"domain": [*levels, "none"], "range": [*(f"var(--heat{level})" for level in levels), "var(--none)"]}
    layers: list[Spec] = [
        {
            "mark": {"type": "rect", "stroke": "var(--card)", "strokeWidth": 1},
            "encoding": {"color": {"field": "level", "type": "nominal", "scale": ramp, "legend": None}},
        },
        {
            "mark": {"type": "text", "fontSize": 11, "color": "var(--ink)"},
            "encoding": {"text": {"field": "wer", "type": "nominal"}},
        },
    ]
    long = max(map(len, facts.methods)) > 6
    axis = {"orient": "top", "labelAngle": -40 if long else 0, "domain": False, "ticks": False, "title": None}
    x = {"field": "method", "type": "nominal", "sort": list(facts.methods), "axis": axis}
    y = {"field": "domain", "sort": list(domains)}
    spec = _by_group(rows, layers, x, y, 56 * len(facts.methods))
    return Chart(
        "heat",
        "Word error rate of each domain and method",
        "Each cell holds a word error rate in percent; its colour says by how many points it differs from source.",
        _whole(spec),
        marks,
    )


def change_by_domain(facts: Facts, method: str) -> Chart | None:
    """Return the change of WER against source on each domain, with intervals; None where nothing can be compared."""
    marks: list[Mark] = []
    domains = shown_domains(facts)
    rows: list[Spec] = []
    for cell in (facts.cells[domain, method] for domain in domains if (domain, method) in facts.cells):
        found = cell.figure
        if found.change is not None:
            within = _within(found.change_low, found.change_high)
            text = f"{cell.domain}, {method}: {points(found.change)} points{within}"
            known = {"low": found.change_low, "high": found.change_high, "verdict": verdict(found)}
            rows.append(
                {"group": cell.group, "domain": cell.domain, "change": found.change}
                | known
                | _said(marks, text, cell.group, method)
            )
    if not rows:
        return None
    hue = {"domain": list(_VERDICTS), "range": [f"var(--{name})" for name in _VERDICTS]}
    colour = {"field": "verdict", "type": "nominal", "scale": hue, "legend": None}
    shape = {"domain": list(_VERDICTS), "range": ["triangle-left", "triangle-right", "circle"]}
    layers: list[Spec] = [
        {"mark": {"type": "rule", "color": "var(--axis)"}, "encoding": {"x": {"datum": 0}, "y": None}},
        {
            "mark": _POINT,
            "encoding": {
                "color": colour,
                "shape": {"field": "verdict", "type": "nominal", "scale": shape, "legend": None},
            },
        },
    ]
    if any(row["low"] is not None for row in rows):
        layers.insert(1, _intervals(colour))
    x: Spec = {"field": "change", "type": "quantitative", "title": "change of WER against source, points"}
    x["axis"] = {"tickCount": 6}
    spec = _by_group(rows, layers, x, {"field": "domain", "sort": list(domains)}, 260)
    return Chart(
        f"change-{method}",
        f"Change of word error rate with {method} on each domain",
        "Points against source; left of zero is better.",
        _whole(spec),
        marks,
    )


def by_step(facts: Facts, what: str) -> Chart | None:
    """Return WER (`wer`) or entropy (`entropy`) of each method after 0, 1, … updates; None where there is none."""
    marks: list[Mark] = []
    title, unit, decimals = {
        "wer": ("word error rate, %", "%", 2),
        "entropy": ("entropy, nats per token", "nats per token", 3),
    }[what]
    rows: list[Spec] = []
    for step in facts.steps:
        value = step.wer if what == "wer" else step.entropy
        if value is not None and step.method != SOURCE:
            said = _said(
                marks, f"{step.method} after {step.step} updates: {value:.{decimals}f} {unit}", "", step.method
            )
            rows.append({"method": step.method, "step": step.step, "value": value} | said)
    if not rows:
        return None
    methods = [method for method in facts.adapting if any(row["method"] == method for row in rows)]
    x = {"field": "step", "type": "quantitative", "title": "updates", "axis": {"tickMinStep": 1, "format": "d"}}
    y = {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": what == "entropy"}}
    shared = _series(facts, methods)
    spec: Spec = {
        "data": {"values": rows},
        "width": 290,
        "height": 200,
        "encoding": {"x": x, "y": y} | shared,
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"shape": {"value": None}}},
            {"mark": {"type": "point", "filled": True, "size": 45, "opacity": 1}, "encoding": {"description": _SAID}},
        ],
    }
    name = {"wer": "Word error rate", "entropy": "Entropy"}[what]
    return Chart(f"steps-{what}", f"{name} after each update", "Lower is better.", _whole(spec), marks)


def speed(facts: Facts) -> Chart | None:
    """Return WER over all domains against the time that a second of speech takes; None where there is no figure."""
    marks: list[Mark] = []
    rows: list[Spec] = []
    for standing in facts.ranked():
        method = standing.method
        cost = seconds_a_second(facts, method)
        if cost:
            text = f"{method}: {rate(standing.figure.wer)} %, {cost:.3g} s per second of speech"
            rows.append({"method": method, "wer": standing.figure.wer, "cost": cost} | _said(marks, text, "", method))
    if not rows:
        return None
    shown = [method for method in facts.methods if any(row["method"] == method for row in rows)]
    low, high = min(row["cost"] for row in rows) / 1.5, max(row["cost"] for row in rows) * 1.5
    x = {
        "field": "cost",
        "type": "quantitative",
        "title": "seconds per second of speech (logarithmic)",
        "scale": {"type": "log", "nice": False, "domain": [low, high]},
        "axis": {"values": _ticks(low, high), "format": "~g"},
    }
    y = {"field": "wer", "type": "quantitative", "title": "word error rate, %", "scale": {"zero": False}}
    spec: Spec = {
        "data": {"values": rows},
        "width": 290,
        "height": 200,
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
        "encoding": {"x": x, "y": y, "description": _SAID} | _series(facts, shown),
    }
    return Chart(
        "speed", "Word error rate against cost", "Further left is faster, lower is better.", _whole(spec), marks
    )


def _ticks(low: float, high: float) -> list[float]:
    # Where a logarithmic axis is marked: at 1, 2 and 5 of each power of ten, or at the powers of a wide one.
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    leading = (1, 2, 5) if len(powers) < 5 else (1,)
    return [value for power in powers for digit in leading if low <= (value := digit * 10.0**power) <= high]


def seconds_a_second(facts: Facts, method: str) -> float | None:
    """Return the wall seconds that a method took for a second of speech; None where nothing was timed."""
    cells = [cell for (_, name), cell in facts.cells.items() if name == method]
    spoken = sum(cell.audio_seconds or 0.0 for cell in cells)
    spent = sum(cell.seconds or 0.0 for cell in cells)
    return spent / spoken if spoken and spent else None


def shown_domains(facts: Facts) -> tuple[str, ...]:
    """Return the domains that charts show, in the order of the plan."""
    if len(facts.domains) <= MOST_DOMAINS:
        return facts.domains
    largest = sorted(facts.domains, key=_largest(facts.cells, facts.methods), reverse=True)[:MOST_DOMAINS]
    return tuple(domain for domain in facts.domains if domain in set(largest))


def _largest(cells: Mapping[tuple[str, str], Cell], methods: Sequence[str]) -> Callable[[str], float]:
    def largest(domain: str) -> float:
        changes = (cells[domain, method].figure.change for method in methods if (domain, method) in cells)
        return max((abs(change) for change in changes if change is not None), default=-1.0)

    return largest


def _level(change: float) -> int:
    # The step of the heat map's colour, from -3 (much better) over 0 (within a point) to 3.
    if change < 0:
        return -sum(change <= edge for edge in STEPS_OF_COLOUR[:3])
    return sum(change >= edge for edge in STEPS_OF_COLOUR[3:])


def _said(marks: list[Mark], text: str, group: str, method: str) -> dict[str, str]:
    marks.append(Mark(text, group, method))
    return {"said": str(len(marks) - 1)}


def _within(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" (95 % interval {interval(low, high)})"


def _against(figure: Figure) -> str:
    if figure.change is None:
        return ""
    return f" ({points(figure.change)} points, {signed_percent(figure.change_percent)} %, against source)"


def _width(methods: Sequence[str]) -> int:
    # The width of a plot beside the methods' names, so that four such charts stand beside each other.
    return max(150, 250 - 7 * max(map(len, methods)))


def _palette(facts: Facts) -> Spec:
    # The colour of each method: grey for source, one of the page's hues for each other.
    return {"domain": list(facts.methods), "range": [f"var(--{facts.hue(method)})" for method in facts.methods]}


def _series(facts: Facts, shown: Sequence[str]) -> Spec:
    # Colour and shape of the methods, with a legend of those that are shown.
    legend = {"orient": "top", "columns": 3, "title": None, "values": list(shown), "symbolSize": 70, "symbolOpacity": 1}
    shapes = [_SHAPES[place % len(_SHAPES)] for place in range(len(facts.methods))]
    return {
        "color": {"field": "method", "type": "nominal", "scale": _palette(facts), "legend": legend},
        "shape": {
            "field": "method",
            "type": "nominal",
            "scale": {"domain": list(facts.methods), "range": shapes},
            "legend": legend,
        },
    }


def _intervals(colour: Spec) -> Spec:
    ends = {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}, "color": colour}
    return {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": ends}


def _by_group(rows: list[Spec], layers: list[Spec], x: Spec, y: Spec, width: int) -> Spec:
    # The rows of a chart under the names of their groups, which share the scale of `x`.
    heads = list(dict.fromkeys(row["group"] for row in rows))
    header = {"title": None, "labelOrient": "top", "labelAnchor": "start", "labelAngle": 0, "labelPadding": -8}
    for layer in layers:
        layer["encoding"] = {"description": _SAID} | layer["encoding"]
    return {
        "data": {"values": rows},
        "facet": {"row": {"field": "group", "type": "nominal", "sort": heads, "header": header}},
        "spacing": 6,
        "spec": {
            "width": width,
            "height": {"step": 20},
            "encoding": {"x": x, "y": y | {"type": "nominal", "axis": _NAMES}},
            "layer": layers,
        },
        "resolve": {"scale": {"y": "independent"}},
    }


def _whole(spec: Spec) -> Spec:
    text = {"labelColor": "var(--soft)", "titleColor": "var(--soft)", "labelFontSize": 12, "titleFontSize": 12}
    return spec | {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": None,
        "padding": {"left": 8, "right": 8, "top": 2, "bottom": 2},
        "config": {
            "font": "Arial, Helvetica, sans-serif",
            "axis": text
            | {
                "titleFontWeight": "normal",
                "gridColor": "var(--line)",
                "domainColor": "var(--axis)",
                "tickColor": "var(--axis)",
            },
            "header": text | {"labelFontWeight": "bold", "labelColor": "var(--ink)"},
            "legend": text | {"labelColor": "var(--ink)"},
            "view": {"stroke": None},
        },
    }
