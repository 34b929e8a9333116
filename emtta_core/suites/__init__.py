"""The suites that are shipped; docs/suites.md says how one is written."""

from pathlib import Path

SUITES = Path(__file__).parent
"""Where they lie."""


def suite_names() -> list[str]:
    """Return their names."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))
