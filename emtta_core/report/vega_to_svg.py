"""Vega-Lite to SVG, as a process of its own: a chart a line comes in as JSON, its SVG a line goes out.

The converter takes most of a second to start, and lets no other thread of its process work meanwhile. It is run as a
file, so that it loads nothing else.
"""

import json
import sys
from typing import Any

import vl_convert


def convert() -> None:
    """Convert each line that comes in."""
    _to_svg({"data": {"values": [{"x": 0}]}, "mark": "point", "encoding": {"x": {"field": "x"}}})  # starts it
    for line in sys.stdin:
        try:
            print(json.dumps(_to_svg(json.loads(line))), flush=True)
        except ValueError as error:
            sys.exit(f"{' '.join(str(error).split()):.300}")


def _to_svg(spec: dict[str, Any]) -> str:
    return str(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))


if __name__ == "__main__":
    convert()
