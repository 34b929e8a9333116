"""At which places two plain values differ, for messages on suites."""

from typing import Any


def differences(there: Any, here: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Return the places at which two plain values differ, each with both values.

    Args:
        there: one value, as of `Suite.identity`.
        here: the other.
        path: what to call the place of both.

    Returns:
        As in `("adaptation.steps", 10, 5)`; a domain is told by its name, and not by its place in the list.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        found = [differences(there.get(key), here.get(key), f"{path}.{key}" if path else key) for key in keys]
        return [item for items in found for item in items]
    if path == "domains" and isinstance(there, list) and isinstance(here, list):
        by_name = [{item["name"]: item for item in items} for items in (there, here)]
        return differences(by_name[0], by_name[1], path)
    return [] if there == here else [(path, there, here)]
