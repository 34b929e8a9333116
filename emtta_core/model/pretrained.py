"""A network as transformers reads it from a folder, where each weight must be found and used.

transformers itself fills in what is missing at random, and ignores what it has no use for. It warns, and
the model goes on as if it had been trained.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from emtta_core.errors import ModelError

NAMED = 3
"""How many weights a refusal names of each kind."""

_HARMLESS = re.compile(r"(?:.*\.)?(?:version|embed_positions\.(?:weights|_float_tensor))")
"""What older files hold besides the weights: fairseq's mark of a format, and sinusoids that are computed anew."""


def read_network(kind: Any, folder: Path, *, computed: Sequence[str] = (), **options: Any) -> Any:
    """Read a network with the weights in a folder, in eval mode and float32.

    Args:
        kind: the class of transformers, as `WhisperForConditionalGeneration`.
        folder: in the layout of `from_pretrained`.
        computed: names of weights that transformers computes, as they were trained, where a file has none.
        options: others of `from_pretrained`.

    Raises:
        ModelError: a weight is missing, of another shape, or of no use in the network; names the first few.
        Exception: whatever transformers raises for files that are missing or broken.
    """
    with _warnings_off():
        network, found = kind.from_pretrained(
            folder,
            use_safetensors=True,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused here, with their shapes
            **options,
        )
    shapes = {name: (tuple(stored), tuple(wanted)) for name, stored, wanted in found["mismatched_keys"]}
    missing = _untied(network, set(found["missing_keys"]) - {*shapes, *computed})
    homeless = sorted(name for name in found["unexpected_keys"] if not _HARMLESS.fullmatch(name))
    faults = []
    if missing:
        faults.append(f"lack {len(missing)} that its config.json asks for ({_some(missing)})")
    if shapes:
        named = [f"{name} {stored}, not {wanted}" for name, (stored, wanted) in sorted(shapes.items())]
        faults.append(f"have {len(shapes)} of another shape than its config.json says ({_some(named)})")
    if homeless:
        faults.append(f"hold {len(homeless)} that its config.json has no place for ({_some(homeless)})")
    if faults:
        raise ModelError(
            f"the weights in {folder} {', and '.join(faults)}; take config.json and weights from one and the same "
            "model; of one that training wrapped (names begin with base_model. or module.), save the model inside by "
            "its save_pretrained, adapters merged (merge_and_unload of PEFT)"
        )
    return network.eval()


def _untied(network: Any, missing: set[str]) -> list[str]:
    # The missing weights without those that are another one, which is there, by another name.
    state = network.state_dict()
    there = {tensor.data_ptr() for name, tensor in state.items() if name not in missing}
    return sorted(name for name in missing if name not in state or state[name].data_ptr() not in there)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


@contextmanager
def _warnings_off() -> Iterator[None]:
    # Keep transformers from printing, inside the `with` block, a table of what is said here in words.
    from transformers.utils import logging

    usual = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(usual)
