"""The entry points of emtta's own processes: the command, the Prefect flows, and the first code of a worker.

`flows`, `tasks` and `sql` are beside `emtta_core`, both in the repository and in an installed package. Their names are
common: other packages may use them, or a file in the current folder or on PYTHONPATH. So the SQL is read by path, and
emtta's own processes call `configure_process`, after which `flows` and `tasks` are always emtta's. In a program that
only imports `emtta_core`, these names remain the program's.
"""

import base64
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution, distributions
from pathlib import Path
from typing import Any

from emtta_core.cores import PASSIVE
from emtta_core.errors import EmttaError

ROOT = Path(__file__).resolve().parents[1]
"""The folder with emtta's packages: the repository, or the environment's site-packages."""

PACKAGES = ("flows", "tasks")
"""The packages beside `emtta_core` that Python must not find anywhere else."""

SQL = ROOT / "sql"
"""The folder of the SQL files, which is not a package."""

FLOWS = {"nightly": "flows.nightly", "evaluate": "flows.evaluate"}
"""The Prefect flows with the entrypoints `emtta_core.entry.NAME`, and their modules."""


def main() -> None:
    """Run the `emtta` command."""
    try:
        configure_process()
        check_installed_files()
    except EmttaError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    import_module("flows.cli.main").command()


def __getattr__(name: str) -> Any:
    """Import a flow when Prefect loads it by its entrypoint (PEP 562)."""
    if name not in FLOWS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    configure_process()
    return getattr(import_module(FLOWS[name]), name)


def configure_process() -> None:
    """Make this process and its children find emtta's own packages, and keep idle threads from spinning.

    Raises:
        EmttaError: another package of the same name has already been imported.
    """
    os.environ.setdefault(*PASSIVE)
    for name in PACKAGES:
        imported = sys.modules.get(name)
        folders = [Path(folder).resolve() for folder in getattr(imported, "__path__", [])]
        if imported is not None and folders != [ROOT / name]:
            raise EmttaError(
                f"emtta needs its own package {name!r}, but this process has already imported another of that name "
                f"({getattr(imported, '__file__', None) or imported!r}); run emtta in a separate process"
            )
    if _OwnPackages not in sys.meta_path:
        sys.meta_path.insert(0, _OwnPackages)


class _OwnPackages:
    """Finds emtta's packages beside `emtta_core`, ahead of any other finder."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(ROOT)]) if name in PACKAGES else None


def check_installed_files() -> None:
    """Check that the files of the installed package are those that were installed.

    pip lets two packages have files of the same name, and the last one installed overwrites the other's.

    Raises:
        EmttaError: names the overwritten files, the other packages that have them, and the command that restores them.
    """
    try:
        emtta = distribution("emtta")
    except PackageNotFoundError:  # a checkout on PYTHONPATH
        return
    if Path(str(emtta.locate_file(""))).resolve() != ROOT:  # an editable install has no installed files
        return
    shared = [file for file in emtta.files or [] if file.parts[0] in (*PACKAGES, SQL.name)]
    foreign = [file for file in shared if file.hash and _digest(file) != file.hash.value]
    if foreign:
        names, more = ", ".join(map(str, foreign[:3])), f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        packages = _others_with(foreign)
        by = f", which {' and '.join(packages)} also installs," if packages else ""
        raise EmttaError(
            f"{names}{more}{by} in {ROOT}: not the files of emtta that were installed there; install emtta in its own "
            f"environment, or restore it: pip install --force-reinstall --no-deps '{_source(emtta)}'"
        )


def _digest(file: PackagePath) -> str | None:
    try:
        return base64.urlsafe_b64encode(hashlib.sha256(file.read_binary()).digest()).rstrip(b"=").decode()
    except OSError:
        return None


def _others_with(files: Sequence[PackagePath]) -> list[str]:
    paths = {file.as_posix() for file in files}
    return sorted(
        str(other.name)
        for other in distributions(path=[str(ROOT)])
        if other.name != "emtta" and paths & {file.as_posix() for file in other.files or []}
    )


def _source(emtta: Distribution) -> str:
    origin = json.loads(emtta.read_text("direct_url.json") or "{}")
    url, repository = origin.get("url", "emtta"), origin.get("vcs_info")
    return f"{repository['vcs']}+{url}@{repository['commit_id']}" if repository else str(url)
