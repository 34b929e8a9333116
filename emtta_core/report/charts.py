"""The charts of the report page: Vega-Lite specifications, validated by Altair (https://altair-viz.github.io), then
drawn.

Colours are the page's CSS variables (`var(--…)`), so one picture serves both the light and the dark theme. Each mark
has a label, which becomes its tooltip and the key by which the page filters. A picture is an SVG that is safe to embed.
"""

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import altair as alt

from emtta_core.errors import EmttaError
from emtta_core.pipeline.run_results import Row
from emtta_core.report import vega_to_svg
from emtta_core.report.facts import ALL, SOURCE, Facts, interval, number, points, rate, signed_percent, verdict

MAX_DOMAINS = 60
"""The most domains that a chart shows: those with the largest changes."""

EDGES = (-10.0, -5.0, -1.0, 1.0, 5.0, 10.0)
"""Changes of WER, in points, at which the heat map's colour changes."""

_NAMES = alt.Axis(domain=False, ticks=False, labelPadding=6, title=None, grid=False)
_TEXT = {"labelColor": "var(--soft)", "titleColor": "var(--soft)", "labelFontSize": 12, "titleFontSize": 12}
_LINES = {"gridColor": "var(--line)", "domainColor": "var(--axis)", "tickColor": "var(--axis)"}
_THEME = {
    "background": "transparent",
    "padding": {"left": 8, "right": 8, "top": 2, "bottom": 2},
    "config": {
        "font": "Arial, Helvetica, sans-serif",
        "axis": _TEXT | _LINES | {"titleFontWeight": "normal"},
        "header": _TEXT | {"labelFontWeight": "bold", "labelColor": "var(--ink)"},
        "legend": _TEXT | {"labelColor": "var(--ink)"},
        "point": {"filled": True, "opacity": 1},
        "view": {"stroke": None},
    },
}
_ROWS = alt.NamedData("rows")  # see `_chart`
_LABEL = alt.Description("label:N")
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
_VERDICTS = {"better": "triangle-left", "worse": "triangle-right", "unclear": "circle"}


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart to be drawn."""

    name: str  # its name on the page, part of an element id
    title: str  # what it shows, for screen readers
    description: str  # how to read it, for screen readers
    spec: dict[str, Any]  # the Vega-Lite specification


def leaderboard(facts: Facts, group: str) -> Chart | None:
    """WER of each method over a group, with intervals; None if there are no figures.

    All groups share one scale, so that their charts can be compared.
    """
    rows = []
    for method in facts.methods:
        mean = facts.means.get((method, group))
        if mean is not None and mean["wer"] is not None:
            text = f"{method}, {group}: {rate(mean['wer'])} %{_within(mean, 'wer')}"
            rows.append(_labelled(mean, text))
    if not rows:
        return None
    columns = ("wer", "wer_low", "wer_high")
    ends = [mean[name] for mean in facts.means.values() for name in columns if mean[name] is not None]
    room = 0.05 * (max(ends) - min(ends)) or 1.0
    scale = alt.Scale(domain=[max(0.0, min(ends) - room), max(ends) + room], nice=False)
    colour = alt.Color("method:N", scale=_palette(facts), legend=None, sort=None)
    x = alt.X("wer:Q", title=None, scale=scale, axis=alt.Axis(tickCount=5))
    y = alt.Y("method:N", sort=list(facts.methods), axis=_NAMES)
    chart = alt.Chart().encode(colour)
    layers = [*_intervals(chart, rows, "wer"), chart.mark_point(size=60).encode(_LABEL)]
    # Narrow enough for four such charts, with method names, side by side.
    width = max(150, 250 - 7 * max(map(len, facts.methods)))
    drawn = alt.layer(*layers, data=_ROWS).encode(x, y).properties(width=width, height=alt.Step(20))
    title = f"Word error rate of each method, {group}"
    return _chart(f"leaderboard-{group}", title, "In percent; further left is better.", drawn, rows)


def heat_map(facts: Facts) -> Chart | None:
    """WER of each domain and method, coloured by the change against source; None if there are no figures."""
    rows = []
    for cell in _shown_cells(facts):
        wer, change = cell["wer"], cell["change"]
        text = f"{cell['domain']}, {cell['method']}: "
        text += cell["state"] if wer is None else f"{rate(wer)} %"
        if change is not None:
            text += f" ({points(change)} points, {signed_percent(cell['change_percent'])} %, against source)"
        level = "none" if wer is None else str(_level(change or 0.0))
        rows.append(_labelled(cell, text) | {"level": level, "written": number(wer, ".1f")})
    if all(row["wer"] is None for row in rows):
        return None
    levels = [str(level) for level in range(-3, 4)]
    ramp = alt.Scale(domain=[*levels, "none"], range=[*(f"var(--heat{level})" for level in levels), "var(--none)"])
    angle = -40 if max(map(len, facts.methods)) > 6 else 0
    axis = alt.Axis(orient="top", labelAngle=angle, domain=False, ticks=False, title=None)
    chart = alt.Chart().encode(_domains(facts), _LABEL)
    cells = chart.mark_rect(stroke="var(--card)", strokeWidth=1).encode(alt.Color("level:N", scale=ramp, legend=None))
    texts = chart.mark_text(fontSize=11, color="var(--ink)").encode(alt.Text("written:N"))
    x = alt.X("method:N", sort=list(facts.methods), axis=axis)
    return _chart(
        "heat",
        "Word error rate of each domain and method",
        "Each cell holds a word error rate in percent; its colour says by how many points it differs from source.",
        _by_group(rows, [cells, texts], x, width=56 * len(facts.methods)),
        rows,
    )


def change_by_domain(facts: Facts, method: str) -> Chart | None:
    """The change of WER against source on each domain, with intervals; None if nothing can be compared."""
    rows = []
    for cell in _shown_cells(facts):
        if cell["method"] == method and cell["change"] is not None:
            text = f"{cell['domain']}, {method}: {points(cell['change'])} points{_within(cell, 'change')}"
            rows.append(_labelled(cell, text) | {"verdict": verdict(cell)})
    if not rows:
        return None
    hues = alt.Scale(domain=list(_VERDICTS), range=[f"var(--{name})" for name in _VERDICTS])
    shapes = alt.Scale(domain=list(_VERDICTS), range=list(_VERDICTS.values()))
    x = alt.X("change:Q", title="change of WER against source, points", axis=alt.Axis(tickCount=6))
    chart = alt.Chart().encode(_domains(facts), alt.Color("verdict:N", scale=hues, legend=None), _LABEL)
    layers = [
        alt.Chart().mark_rule(color="var(--axis)").encode(alt.XDatum(0), _LABEL),  # no y: it spans all domains
        *_intervals(chart, rows, "change"),
        chart.mark_point(size=60).encode(alt.Shape("verdict:N", scale=shapes, legend=None)),
    ]
    return _chart(
        f"change-{method}",
        f"Change of word error rate with {method} on each domain",
        "Points against source; left of zero is better.",
        _by_group(rows, layers, x, width=260),
        rows,
    )


def by_step(facts: Facts, what: str) -> Chart | None:
    """WER (`wer`) or entropy (`entropy`) of each method after 0, 1, … updates; None if there are no figures."""
    name, axis, unit, form = {
        "wer": ("Word error rate", "word error rate, %", "%", ".2f"),
        "entropy": ("Entropy", "entropy, nats per token", "nats per token", ".3f"),
    }[what]
    rows = [
        _labelled(step, f"{step['method']} after {step['step']} updates: {step[what]:{form}} {unit}")
        for step in facts.steps
        if step[what] is not None and step["method"] != SOURCE
    ]
    if not rows:
        return None
    chart = alt.Chart().encode(
        alt.X("step:Q", title="updates", axis=alt.Axis(tickMinStep=1, format="d")),
        alt.Y(f"{what}:Q", title=axis, scale=alt.Scale(zero=what == "entropy")),
        *_series(facts, rows),
    )
    lines = chart.mark_line(strokeWidth=2).encode(shape=alt.value(None))
    drawn = alt.layer(lines, chart.mark_point(size=45).encode(_LABEL), data=_ROWS)
    title = f"{name} after each update"
    return _chart(f"steps-{what}", title, "Lower is better.", drawn.properties(width=290, height=200), rows)


def speed(facts: Facts) -> Chart | None:
    """WER over all domains against the time per second of speech; None if there are no figures."""
    rows = []
    for mean in facts.ranked():
        cost = facts.cost(mean["method"])
        if cost:
            text = f"{mean['method']}: {rate(mean['wer'])} %, {cost:.3g} s per second of speech"
            rows.append(_labelled(mean, text) | {"cost": cost})
    if not rows:
        return None
    low, high = min(row["cost"] for row in rows) / 1.5, max(row["cost"] for row in rows) * 1.5
    x = alt.X("cost:Q", title="seconds per second of speech (logarithmic)")
    x = x.scale(type="log", nice=False, domain=[low, high]).axis(values=_ticks(low, high), format="~g")
    y = alt.Y("wer:Q", title="word error rate, %", scale=alt.Scale(zero=False))
    chart = alt.Chart(_ROWS, width=290, height=200).mark_point(size=90)
    drawn = chart.encode(x, y, _LABEL, *_series(facts, rows))
    return _chart("speed", "Word error rate against cost", "Further left is faster, lower is better.", drawn, rows)


def shown_domains(facts: Facts) -> tuple[str, ...]:
    """The domains that charts show, in the order of the plan."""
    changes = dict.fromkeys(facts.domains, -1.0)
    for (domain, _), cell in facts.cells.items():
        if cell["change"] is not None:
            changes[domain] = max(changes[domain], abs(cell["change"]))
    largest = sorted(changes, key=lambda domain: -changes[domain])[:MAX_DOMAINS]
    return tuple(domain for domain in facts.domains if domain in largest)


def _shown_cells(facts: Facts) -> list[Row]:
    every = ((domain, method) for domain in shown_domains(facts) for method in facts.methods)
    return [facts.cells[cell] for cell in every if cell in facts.cells]


def _level(change: float) -> int:
    # The step of the heat map's colour, from -3 (much better) through 0 (within a point) to 3.
    return sum(change >= edge for edge in EDGES[3:]) - sum(change <= edge for edge in EDGES[:3])


def _ticks(low: float, high: float) -> list[float]:
    # The ticks of a logarithmic axis: 1, 2 and 5 of each power of ten, or only the powers if the range is wide.
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    leading = (1, 2, 5) if len(powers) < 5 else (1,)
    return [value for power in powers for digit in leading if low <= (value := digit * 10.0**power) <= high]


def _labelled(row: Row, text: str) -> dict[str, Any]:
    # A row with the label of its mark: the tooltip, and the group and method it belongs to.
    group = row.get("group", ALL)
    return {**row, "label": json.dumps([text, "" if group == ALL else group, row["method"]])}


def _within(row: Row, what: str) -> str:
    ends = interval(row[f"{what}_low"], row[f"{what}_high"])
    return f" (95 % interval {ends})" if ends else ""


def _palette(facts: Facts) -> alt.Scale:
    # The colour of each method: grey for source, one of the page's hues for the others.
    return alt.Scale(domain=list(facts.methods), range=[f"var(--{facts.hue(method)})" for method in facts.methods])


def _series(facts: Facts, rows: Sequence[Row]) -> tuple[alt.Color, alt.Shape]:
    # Colour and shape of the methods, with a legend of those shown.
    shown = {row["method"] for row in rows}
    values = [method for method in facts.methods if method in shown]
    legend = alt.Legend(orient="top", columns=3, title=None, values=values, symbolSize=70, symbolOpacity=1)
    shapes = [_SHAPES[index % len(_SHAPES)] for index in range(len(facts.methods))]
    shape = alt.Shape("method:N", scale=alt.Scale(domain=list(facts.methods), range=shapes), legend=legend)
    return alt.Color("method:N", scale=_palette(facts), legend=legend), shape


def _intervals(chart: alt.Chart, rows: Sequence[Row], what: str) -> list[alt.Chart]:
    if all(row[f"{what}_low"] is None for row in rows):
        return []
    return [chart.mark_rule(strokeWidth=2).encode(alt.X(f"{what}_low:Q"), alt.X2(f"{what}_high"))]


def _domains(facts: Facts) -> alt.Y:
    return alt.Y("domain:N", sort=list(shown_domains(facts)), axis=_NAMES)


def _by_group(rows: Sequence[Row], layers: Sequence[alt.Chart], x: alt.X, *, width: int) -> alt.FacetChart:
    # The domains under the names of their groups, which share the x scale.
    heads = list(dict.fromkeys(row["group"] for row in rows))
    header = alt.Header(title=None, labelOrient="top", labelAnchor="start", labelAngle=0, labelPadding=-8)
    chart = alt.layer(*layers, data=_ROWS).encode(x).properties(width=width, height=alt.Step(20))
    row = alt.Row("group:N", sort=heads, header=header)
    facets: alt.FacetChart = chart.facet(row=row, spacing=6).resolve_scale(y="independent")
    return facets


def _chart(
    name: str, title: str, description: str, drawn: alt.Chart | alt.LayerChart | alt.FacetChart, rows: Sequence[Row]
) -> Chart:
    # Rows and theme are added last, so that Altair does not copy them, and tests validate the result: both take time.
    return Chart(name, title, description, drawn.to_dict(validate=False) | {"datasets": {"rows": rows}} | _THEME)


_SVG = "http://www.w3.org/2000/svg"
_KEPT = frozenset({"svg", "g", "path", "rect", "line", "text", "tspan", "title", "defs", "clipPath"})
"""The elements allowed in a chart; all others are dropped."""

_PHONE = 440
"""The widest picture, in pixels, that stays readable when shrunk to a phone's width; a wider one scrolls."""

_DROPPED = ("aria-", "role", "on", "style", "href", "xmlns", "class", "version", "{")
"""Prefix of the attributes that are removed: the title and the table beside the picture replace them."""

_FRACTION = re.compile(r"-?\d*\.\d+")
"""A non-integer number in a path or transformation; two decimals are kept."""


class Painter:
    """Draws charts in a separate process, which starts when the context is entered and ends when it is left.

    Example:
        >>> with Painter() as painter:  # doctest: +SKIP
        ...     (svg,) = painter.draw([leaderboard(facts, "all")]).result()
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", vega_to_svg.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._thread.shutdown()
        self._process.communicate()

    def draw(self, charts: Sequence[Chart]) -> Future[list[str]]:
        """Start drawing charts; to be called once, with all of them.

        Returns:
            Each as an `<svg>` element of shapes and texts only, with all values escaped. It has a title and a
            description, and its marks have a tooltip and the attributes `data-group` and `data-method`. The result
            raises EmttaError if the drawing process fails.
        """
        return self._thread.submit(self._draw, charts)

    def _draw(self, charts: Sequence[Chart]) -> list[str]:
        out, complaints = self._process.communicate("".join(f"{json.dumps(chart.spec)}\n" for chart in charts))
        pictures = out.splitlines()
        if self._process.returncode or len(pictures) != len(charts):
            reason = (complaints.strip().splitlines() or [f"exit code {self._process.returncode}"])[-1]
            raise EmttaError(f"the charts of the page cannot be drawn: {reason}")
        return [_element(json.loads(drawn), chart) for drawn, chart in zip(pictures, charts, strict=True)]


def _element(svg: str, chart: Chart) -> str:
    root = ET.fromstring(svg)
    _clean(root)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    names = [f"{chart.name}-title", f"{chart.name}-description"]
    root.attrib.clear()
    root.attrib |= {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    root.attrib |= {"role": "img", "aria-labelledby": " ".join(names)}
    if width > _PHONE:
        root.set("class", "wide")
    for index, (kind, text) in enumerate((("title", chart.title), ("desc", chart.description))):
        element = ET.Element(kind, {"id": names[index]})
        element.text = text
        root.insert(index, element)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _clean(element: ET.Element) -> None:
    # Remove what a page does not need, and give each mark its tooltip; names lose their namespace.
    label = element.get("aria-label", "") if element.get("role") == "graphics-symbol" else ""
    for name in list(element.attrib):
        if name.startswith(_DROPPED):
            del element.attrib[name]
        elif name in ("d", "transform"):
            element.set(name, _FRACTION.sub(_rounded, element.attrib[name]))
    for child in list(element):
        if _local(child.tag) in _KEPT and child.get("class") != "background":
            _clean(child)
        else:
            element.remove(child)
    element.tag = _local(element.tag)
    if label.startswith("["):  # the label of a mark; those of axes and legends are prose
        text, group, method = json.loads(label)
        element.attrib |= {f"data-{name}": value for name, value in (("group", group), ("method", method)) if value}
        tooltip = ET.Element("title")
        tooltip.text = text
        element.insert(0, tooltip)


def _local(tag: str) -> str:
    return tag.removeprefix(f"{{{_SVG}}}")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
