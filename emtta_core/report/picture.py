"""Drawing a chart: Vega-Lite to an SVG that is safe to stand in a page and says what it shows."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable

import vl_convert

from emtta_core.report.charts import Chart, Mark

_SVG = "http://www.w3.org/2000/svg"
_KEPT = frozenset({"svg", "g", "path", "rect", "line", "text", "tspan", "title", "defs", "clipPath"})
"""The elements that a chart is made of; any other is dropped."""

_PHONE = 440
"""Width, in pixels, of a picture that a phone can shrink to its own and leave it readable; a wider one scrolls."""

_DROPPED = ("aria-", "role", "on", "style", "href", "xmlns", "class", "version")
"""How the attributes begin that a picture does without: its title and the table beside it speak for it."""


def warm_up() -> None:
    """Start what draws charts, which takes most of a second the first time; a thread beside other work may do it."""
    nothing = {
        "data": {"values": [{"x": 0}]},
        "mark": "point",
        "encoding": {"x": {"field": "x", "type": "quantitative"}},
    }
    vl_convert.vegalite_to_svg(nothing, allowed_base_urls=[])


def draw(chart: Chart) -> str:
    """Return a chart as an `<svg>` element, which holds nothing but shapes and texts, with all values escaped.

    It has a title and a description, and its marks a tooltip and the attributes `data-group` and `data-method`.
    """
    root = ET.fromstring(vl_convert.vegalite_to_svg(chart.spec, allowed_base_urls=[]))
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
    """Take away what a page does not need, and give each mark its tooltip; names lose their namespace."""
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
    """Return a path or transformation with its numbers to two decimals; the letters between them as they are."""
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
