"""Drawing a chart: Vega-Lite to an SVG that is safe to stand in a page and says what it shows."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from emtta_core.errors import EmttaError
from emtta_core.report import converter
from emtta_core.report.charts import Chart, Mark

_SVG = "http://www.w3.org/2000/svg"
_KEPT = frozenset({"svg", "g", "path", "rect", "line", "text", "tspan", "title", "defs", "clipPath"})
"""The elements that a chart is made of; any other is dropped."""

_PHONE = 440
"""Width, in pixels, of a picture that a phone can shrink to its own and leave it readable; a wider one scrolls."""

_DROPPED = ("aria-", "role", "on", "style", "href", "xmlns", "class", "version")
"""How the attributes begin that a picture does without: its title and the table beside it speak for it."""


class Painter:
    """Draws charts in a process of its own, from the moment it is entered; leaving ends the process.

    Example:
        >>> with Painter() as painter:  # doctest: +SKIP
        ...     finished = painter.draw([leaderboard(facts, "all")])
        ...     (svg,) = finished()
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", converter.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self._aside = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._aside.shutdown()
        self._process.communicate()

    def draw(self, charts: Sequence[Chart]) -> Callable[[], list[str]]:
        """Begin to draw charts, all that there are.

        Returns:
            What waits for them, and returns each as an `<svg>` element, which holds nothing but shapes and texts, with
            all values escaped. It has a title and a description, and its marks a tooltip and the attributes
            `data-group` and `data-method`. It raises EmttaError when the drawing process fails.
        """
        lines = "".join(f"{json.dumps(chart.spec)}\n" for chart in charts)
        drawn = self._aside.submit(self._process.communicate, lines)

        def finished() -> list[str]:
            out, said = drawn.result()
            found = out.splitlines()
            if self._process.returncode or len(found) != len(charts):
                reason = (said.strip().splitlines() or [f"exit code {self._process.returncode}"])[-1]
                raise EmttaError(f"the charts of the page cannot be drawn: {reason}")
            return [_element(json.loads(line), chart) for line, chart in zip(found, charts, strict=True)]

        return finished


def _element(svg: str, chart: Chart) -> str:
    root = ET.fromstring(svg)
    _clean(root, chart.marks)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    names = f"{chart.name}-title {chart.name}-description"
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": f"0 0 {width:g} {height:g}",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "role": "img",
            "aria-labelledby": names,
        }
    )
    if width > _PHONE:
        root.set("class", "wide")
    for place, (kind, text) in enumerate((("title", chart.title), ("desc", chart.description))):
        element = ET.Element(kind, {"id": names.split()[place]})
        element.text = text
        root.insert(place, element)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _clean(element: ET.Element, marks: list[Mark]) -> None:
    # Take away what a page does not need, and give each mark its tooltip; names lose their namespace.
    said = element.get("aria-label") if element.get("role") == "graphics-symbol" else None
    for name in [name for name in element.attrib if _is_dropped(name)]:
        del element.attrib[name]
    for name in ("d", "transform"):
        if name in element.attrib:
            element.set(name, _shortened(element.attrib[name]))
    for child in list(element):
        if _local(child.tag) in _KEPT and child.get("class") != "background":
            _clean(child, marks)
        else:
            element.remove(child)
    element.tag = _local(element.tag)
    if said is not None and said.isdecimal() and int(said) < len(marks):
        mark = marks[int(said)]
        for name, value in (("data-group", mark.group), ("data-method", mark.method)):
            if value:
                element.set(name, value)
        tooltip = ET.Element("title")
        tooltip.text = mark.text
        element.insert(0, tooltip)


def _local(tag: str) -> str:
    return tag.removeprefix(f"{{{_SVG}}}")


def _is_dropped(name: str) -> bool:
    return name.startswith("{") or name.startswith(_DROPPED)


def _shortened(path: str) -> str:
    # A path or transformation with its numbers to two decimals; the letters between them as they are.
    return "".join(_numbers(path))


def _numbers(path: str) -> Iterable[str]:
    number = ""
    for character in [*path, ""]:
        if character and (character in "0123456789." or (character == "-" and not number)):
            number += character
            continue
        if number:
            yield f"{float(number):.2f}".rstrip("0").rstrip(".") if "." in number else number
        number = character if character == "-" else ""
        if character != "-":
            yield character
