"""Convert Vega-Lite to SVG in a separate process: one chart per input line as JSON, one SVG per output line.

The converter takes most of a second to start, and blocks all other threads of its process meanwhile. It is run as a
file, so that nothing else is loaded.
"""

import json
import sys
from typing import Any

import vl_convert


def convert() -> None:
    """Convert each input line."""
    _to_svg({"data": {"values": [{"x": 0}]}, "mark": "point", "encoding": {"x": {"field": "x"}}})  # warm-up
    for line in sys.stdin:
        try:
            print(json.dumps(_to_svg(json.loads(line))), flush=True)
        except ValueError as error:
            sys.exit(f"{' '.join(str(error).split()):.300}")


def _to_svg(spec: dict[str, Any]) -> str:
    return str(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))


if __name__ == "__main__":
    convert()
