"""The folder that the name of a model means."""

from importlib import resources
from pathlib import Path

from emtta_core.errors import ModelError
from emtta_core.names import DEMO


def folder_of(name: str) -> Path | None:
    """Return the folder that `name` means, None for a hub id.

    Raises:
        ModelError: if there is no such folder.
    """
    if name == DEMO:
        folder = Path(str(resources.files("emtta_core.model") / "demo"))
        if not (folder / "model.safetensors").is_file():
            raise ModelError(f"the demo checkpoint is not in {folder}; `emtta demo train` makes it")
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"model {name!r} is a file; give the folder that holds config.json and model.safetensors")
    parts = name.split("/")
    if len(parts) > 2 or folder.is_absolute() or parts[0] in {".", "..", "~", ""}:
        raise ModelError(
            f"no folder {name!r}; give 'demo', a folder with config.json and model.safetensors, or a hub id such as "
            "'openai/whisper-base'"
        )
    return None
