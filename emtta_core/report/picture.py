"""Drawing a chart: Vega-Lite to an SVG that is safe to stand in a page and says what it shows."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from emtta_core.errors import EmttaError
from emtta_core.report import vega_to_svg
from emtta_core.report.charts import Chart

_SVG = "http://www.w3.org/2000/svg"
_KEPT = frozenset({"svg", "g", "path", "rect", "line", "text", "tspan", "title", "defs", "clipPath"})
"""The elements that a chart is made of; any other is dropped."""

_PHONE = 440
"""Width, in pixels, of a picture that a phone can shrink to its own and leave it readable; a wider one scrolls."""

_DROPPED = ("aria-", "role", "on", "style", "href", "xmlns", "class", "version", "{")
"""How the attributes begin that a picture does without: its title and the table beside it speak for it."""

_FRACTION = re.compile(r"-?\d*\.\d+")
"""A number of a path or transformation that is no whole one; two decimals of it are kept."""


class Painter:
    """Draws charts in a process of its own, from the moment it is entered; leaving ends the process.

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
        """Begin to draw charts, all that there are.

        Returns:
            Each as an `<svg>` element, which holds nothing but shapes and texts, with all values escaped. It has a
            title and a description, and its marks a tooltip and the attributes `data-group` and `data-method`. The
            result raises EmttaError when the drawing process fails.
        """
        return self._thread.submit(self._draw, charts)

    def _draw(self, charts: Sequence[Chart]) -> list[str]:
        out, complaints = self._process.communicate("".join(f"{json.dumps(chart.spec)}\n" for chart in charts))
        pictures = out.splitlines()
        if self._process.returncode or len(pictures) != len(charts):
            reason = (complaints.strip().splitlines() or [f"exit code {self._process.returncode}"])[-1]
            raise EmttaError(f"the charts of the page cannot be drawn: {reason}")
        return [_element(json.loads(picture), chart) for picture, chart in zip(pictures, charts, strict=True)]


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
    # Take away what a page does not need, and give each mark its tooltip; names lose their namespace.
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
    if label.startswith("["):  # of a mark; those of axes and legends are prose
        text, group, method = json.loads(label)
        element.attrib |= {f"data-{name}": value for name, value in (("group", group), ("method", method)) if value}
        tooltip = ET.Element("title")
        tooltip.text = text
        element.insert(0, tooltip)


def _local(tag: str) -> str:
    return tag.removeprefix(f"{{{_SVG}}}")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
