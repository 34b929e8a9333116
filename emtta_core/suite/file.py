"""Suite files: finding, reading, and merging with an extended suite; `emtta_core.suite` validates the content."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emtta_core.errors import UsageError, unknown
from emtta_core.input_files import pointer_at
from emtta_core.names import DEMO

SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the suites that come with emtta; docs/suites.md describes the format."""


def suite_names() -> list[str]:
    """The names of the shipped suites."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


_MERGED = ("model", "adaptation", "runtime")
"""The tables that are merged field by field with those of the extended suite; everything else replaces it."""

_LONGEST_CHAIN = 20
"""The maximum number of suites in a chain of extensions."""

_DEEPEST = 50
"""The maximum nesting of tables and lists."""

_TOO_DEEP = f"{{}}: tables or lists are nested more than {_DEEPEST} deep; a suite needs no more than 5"

_DOTTED = re.compile(r"""(?:["'\w-]+\s*\.\s*){50}""")


def find(name: str, folder: Path) -> tuple[Path, str]:
    """Find the file of a suite, and read its text.

    Args:
        name: a shipped suite's, or the path of a `.toml` file.
        folder: where a relative path starts.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    path = folder / Path(name).expanduser() if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise UsageError(f"there is no suite file {name!r} (looked in {folder.resolve()})")
        unknown_suite = unknown("suite", name, suite_names())
        raise UsageError(f"{unknown_suite}; for your own suite, give the path of its .toml file")
    pointer = pointer_at(path)
    if pointer is not None:
        raise UsageError(f"the suite file {str(path)!r} cannot be read: {pointer}")
    try:
        return path, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the suite file {str(path)!r} cannot be read: {error}") from error


def read(text: str, origin: str, folder: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Parse a suite file, with the suite that it extends and what its domains share filled in.

    Args:
        text: the file's content.
        origin: its name in error messages.
        folder: the base of relative paths.
        extending: the files that extend this one.

    Raises:
        UsageError: it is not TOML, extends a missing suite or itself, or its tables are invalid.
    """
    data = _tables(text, origin)
    base = data.pop("extends", None)
    if base is None:
        return _expand(data, origin, folder)
    if not isinstance(base, str):
        raise UsageError(f"{origin}: extends is {base!r}; it must be a shipped suite's name or a .toml file's path")
    if "domains" not in data and {"defaults", "groups"} & set(data):
        raise UsageError(f"{origin}: defaults and groups belong to the domains of the same file, which has none")
    path, below = find(base, folder)
    if path.resolve() in extending:
        raise UsageError(f"{origin}: it extends {base!r}, which in turn extends it; remove one of the two extends")
    if len(extending) == _LONGEST_CHAIN:
        raise UsageError(
            f"{origin}: more than {_LONGEST_CHAIN} suites extend one another; write the needed tables into this one"
        )
    if "name" not in data:
        raise UsageError(f"{origin}: it extends {base!r} but has no name; give it its own")
    merged = read(below, str(path), path.parent, (*extending, path.resolve())) | {"description": ""}
    for key, value in _expand(data, origin, folder).items():
        merged[key] = _over(merged.get(key), value) if key in _MERGED else value
    return merged


def _tables(text: str, origin: str) -> dict[str, Any]:
    # Parse TOML; excessive nesting is refused before a parser or a validator recurses into it.
    if _DOTTED.search(text):
        raise UsageError(f"{origin}: a key has more than {_DEEPEST} dotted parts, which no suite needs")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is not valid TOML: {error}") from error
    except RecursionError:
        raise UsageError(_TOO_DEEP.format(origin)) from None
    level: list[Any] = [data]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _values(outer)]
        if not level:
            return data
    raise UsageError(_TOO_DEEP.format(origin))


def _values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _expand(data: Mapping[str, Any], origin: str, folder: Path) -> dict[str, Any]:
    # The suite's data with `[defaults]` and `[groups.…]` merged into each of its domains.
    suite = {key: value for key, value in data.items() if key not in {"defaults", "groups"}}
    defaults, groups = data.get("defaults", {}), data.get("groups", {})
    domains = suite.get("domains", [])
    if not (isinstance(groups, dict) and isinstance(domains, list) and all(isinstance(d, dict) for d in domains)):
        raise UsageError(f"{origin}: groups must be a table of tables, and domains an array of tables")
    named = {domain.get("group") for domain in domains}
    for table, shared in [("defaults", defaults), *((f"groups.{name}", group) for name, group in groups.items())]:
        if not isinstance(shared, dict) or set(shared) - {"corpus", "corruption"}:
            raise UsageError(f"{origin}: {table} is {shared!r}; it may only contain the tables corpus and corruption")
    for name in groups:
        if name not in named:
            raise UsageError(
                f"{origin}: groups.{name} is not used by any domain; their groups are {sorted(map(str, named))}"
            )
    filled = []
    for domain in domains:
        filled_domain = dict(domain)
        for part in ("corpus", "corruption"):
            layers = [defaults.get(part), groups.get(domain.get("group"), {}).get(part), domain.get(part)]
            value: Any = None
            for layer in layers:
                value = _over(value, layer)
            if isinstance(value, dict) and isinstance(value.get("path"), str):
                value = value | {"path": str((folder / Path(value["path"]).expanduser()).absolute())}
            if value is not None:
                filled_domain[part] = value
        filled.append(filled_domain)
    if "domains" in suite:
        suite = suite | {"domains": filled}
    return suite | {"model": _with_folder(suite["model"], folder)} if "model" in suite else suite


def _with_folder(model: Any, folder: Path) -> Any:
    # The table `model`, with the path of a folder, which is relative to the suite's folder, made absolute.
    name = model.get("name") if isinstance(model, dict) else None
    if not isinstance(name, str) or name in ("", DEMO):
        return model
    path = folder / Path(name).expanduser()
    return model | {"name": str(path.absolute())} if path.is_dir() else model


def _over(below: Any, above: Any) -> Any:
    # `below` updated with the fields of `above`; a table with another `name` replaces it entirely.
    if above is None:
        return below
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    if above.get("name", below.get("name")) != below.get("name") and "name" in below:
        return above
    return below | above
