"""What `emtta doctor` looks at; each check says what it found and whether that will do."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from emtta_core.errors import EmttaError

FREE_BYTES = 500_000_000
"""Room on the disk that a run of the demo may want, with Prefect's records."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str


def checks(store: str) -> Iterator[Check]:
    """Yield each check, made when it is asked for."""
    yield Check("versions", True, _versions())
    yield Check("devices", True, _devices())
    yield _tried("espeak-ng", _espeak)
    yield _tried("demo model", _model)
    yield _tried("store", lambda: _store(store))
    yield _disk(store)
    yield _tried("prefect", _prefect)


def _tried(what: str, look: Callable[[], str]) -> Check:
    """Return the check of something that raises where it will not do."""
    try:
        return Check(what, True, look())
    except (EmttaError, OSError) as error:
        return Check(what, False, str(error))


def _versions() -> str:
    """Return the releases that matter."""
    from emtta_core.pipeline.run import versions

    return ", ".join(f"{name} {release}" for name, release in versions().items())


def _devices() -> str:
    """Return what torch can compute on."""
    import torch

    from emtta_core.cores import cores

    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([f"cpu with {cores()} cores", *(f"cuda:{index} {name}" for index, name in enumerate(cards))])


def _espeak() -> str:
    """Speak a word."""
    from emtta_core.audio.waveform import SAMPLE_RATE
    from emtta_core.corpora.synthetic import voices_for_noise

    return f"spoke {len(voices_for_noise(1, 0)[0]) / SAMPLE_RATE:.1f} s"


def _model() -> str:
    """Load the demo model."""
    from emtta_core.model import load_model

    model = load_model("demo")
    return f"{model.size:,} parameters on {model.device}, digest {model.digest}"


def _store(location: str) -> str:
    """Look whether the store can be written, or could be made."""
    from emtta_core.store.place import open_place

    return open_place(location).try_out()


def _disk(store: str) -> Check:
    """Look how much room there is where the store is, or would be; where it is no folder, in the current one."""
    path = Path(store).absolute()
    place = next(folder for folder in [path, *path.parents] if folder.exists())
    free = shutil.disk_usage(place).free
    return Check("disk", free >= FREE_BYTES, f"{free / 1e9:.1f} GB free at {place}")


def _prefect() -> str:
    """Look which Prefect server flows will use, and whether one that is configured answers."""
    from prefect.settings import PREFECT_API_URL

    from flows.prefect_server import reach, writable_home

    url = PREFECT_API_URL.value()
    if not url:
        return f"no server configured: a temporary one serves, with its records in {writable_home()}"
    reach()
    return f"the server {url} answers"
