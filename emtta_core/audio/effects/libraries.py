"""The libraries that some effects need, and what to do where one is missing."""

import importlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import soundfile

from emtta_core.errors import UsageError

EXTRA = "pip install 'emtta[corruptions]'"
"""The command that installs what is not there by default."""

_MODULES = {"pyroomacoustics": "pyroomacoustics", "python-stretch": "python_stretch"}


@cache
def release(library: str, wanted_by: str) -> str:
    """Return which release of a library is installed.

    Args:
        library: as pip calls it, or `libsndfile`, which soundfile brings.
        wanted_by: the corruption that needs it.

    Raises:
        UsageError: it is not installed; says the command that installs it.
    """
    if library == "libsndfile":
        return str(soundfile.__libsndfile_version__)
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise UsageError(
            f"the corruption {wanted_by!r} needs {library}, which is not installed; {EXTRA}, or leave out its domains"
        ) from error


def load(library: str, wanted_by: str) -> ModuleType:
    """Return the module of a library, which is imported only now: it takes seconds.

    Raises:
        UsageError: it is not installed; says the command that installs it.
    """
    release(library, wanted_by)
    return importlib.import_module(_MODULES[library])
