"""Objects from other packages, named `package.module:object`: parts of methods, normalizers.

A plug-in is identified by its path, the release of its package and a digest of the package's source, all determined
without running it; whatever it affects includes these in its identity or its name.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from emtta_core.errors import UsageError, in_words

PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""The pattern of a plug-in's name."""


def is_plugin(name: object) -> bool:
    """Whether a part is named as `package.module:object`."""
    return isinstance(name, str) and ":" in name


def import_plugin(kind: str, path: str) -> Any:
    """Import a plug-in; messages name it by `kind`.

    Raises:
        UsageError: it cannot be imported; the message says what to do.
    """
    module, _, attribute = path.partition(":")
    if module.partition(".")[0] != __package__:
        _sources.setdefault(path, _source(path))
    try:
        found = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
        return found
    except AttributeError as error:
        raise UsageError(f"{kind} {path!r}: {in_words(error)}; name an existing object of the module") from error
    except Exception as error:
        raise UsageError(
            f"{kind} {path!r} cannot be imported: {type(error).__name__}: {in_words(error)}; fix its module, or "
            "install its dependencies"
        ) from error


_sources: dict[str, str] = {}
"""The source digest of each plug-in at the time this process imported it."""


def fingerprint(path: str) -> dict[str, str]:
    """The identity of a plug-in, which changes with its code: its path, release and source digest.

    The plug-in is not imported.

    Raises:
        UsageError: there is no such module.
    """
    return {"plugin": path, "version": _release(path.partition(":")[0].partition(".")[0]), "source": _source(path)}


def _source(path: str) -> str:
    # The digest of the source of a plug-in's package.
    top = _spec(path.partition(":")[0], path)
    folders = [Path(folder) for folder in top.submodule_search_locations or ()]
    files = [(file.relative_to(folder).as_posix(), file) for folder in folders for file in folder.rglob("*.py")]
    if not folders and top.origin is not None:
        files = [(Path(top.origin).name, Path(top.origin))]
    source = hashlib.sha256()
    for name, file in sorted(files):
        source.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return source.hexdigest()[:16]


def _spec(module: str, path: str) -> ModuleSpec:
    # The spec of a module's top-level package, which must exist; found without running it.
    found: list[ModuleSpec] = []
    for part in module.split("."):
        inside = found[-1].submodule_search_locations if found else None
        name = f"{found[-1].name}.{part}" if found else part
        try:
            spec = PathFinder.find_spec(name, inside) if found else find_spec(part)
        except (ImportError, ValueError):
            spec = None
        if spec is None or (found and inside is None):
            raise UsageError(
                f"there is no module {name!r} for {path!r}; give package.module:object, and install the package or put "
                "its folder on PYTHONPATH"
            )
        found.append(spec)
    return found[0]


def _release(package: str) -> str:
    try:
        return version(_distributions(tuple(sys.path)).get(package, [package])[0])
    except PackageNotFoundError:  # a file on PYTHONPATH
        return ""


@cache
def _distributions(_path: tuple[str, ...]) -> Mapping[str, list[str]]:
    # The distributions of each package, from the metadata of everything installed, which takes a second to read.
    return packages_distributions()


def check_sources(planned: Mapping[str, str]) -> None:
    """Check by source digest that plug-ins are the same here as when a cell was planned.

    Raises:
        UsageError: one differs here, or has changed since this process imported it.
    """
    for path, source in planned.items():
        digest = _source(path)
        if digest != source:
            raise UsageError(
                f"the source of the plug-in {path!r} is {digest} here, but the cell was planned with {source}; run the "
                "suite again to plan it with the current source, and use the same source on all machines"
            )
        if _sources.get(path, digest) != digest:
            raise UsageError(f"the plug-in {path!r} has changed since this process imported it; restart the process")
