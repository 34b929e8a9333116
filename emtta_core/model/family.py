"""The interface of model families: how a kind of model is read, takes audio, and is prompted; one file per kind.

A family is an encoder and a decoder with LayerNorm before each block. What they share, from the encoder's first
LayerNorm to the logits, is in `emtta_core.model.forward`; what is specific to a kind is in its `Family`. See
docs/models.md for how to write one.
"""

import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emtta_core.errors import ModelError, UsageError
from emtta_core.model.model_files import kinds
from emtta_core.model.policy import DecodingPolicy, Prompt
from emtta_core.model.weights import Precision, Weights


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """The input of the encoder's layers."""

    rows: Tensor  # `(B, S, d)`
    # `(B, 1, 1, S)`, added to attention logits: 0 where there is sound, -inf where there is padding, which must not
    # affect the encoder's output elsewhere; None if all utterances have S positions.
    audible: Tensor | None = None

    @classmethod
    def of(cls, rows: Sequence[Tensor], *, dtype: torch.dtype) -> "EncoderInput":
        """Pad rows `(S, d)` of B utterances, each with its own S, to a batch; `dtype` is that of `audible`."""
        lengths, device = [len(row) for row in rows], rows[0].device
        padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        if len(set(lengths)) == 1:
            return cls(padded)
        padding = torch.arange(padded.shape[1], device=device) >= torch.tensor(lengths, device=device).unsqueeze(1)
        audible = torch.zeros(padding.shape, dtype=dtype, device=device).masked_fill_(padding, -torch.inf)
        return cls(padded, audible[:, None, None, :])


class WaveformLimits(Protocol):
    """The waveforms that a model accepts."""

    @property
    def sample_rate(self) -> int:
        """The sample rate in Hz."""

    @property
    def shortest(self) -> int:
        """The length of the shortest accepted waveform in samples."""

    @property
    def longest(self) -> int:
        """The length of the longest accepted waveform in samples: the window."""


class FrontEnd(WaveformLimits, Protocol):
    """Everything between a waveform and the encoder's first LayerNorm, computed once per episode."""

    @property
    def positions(self) -> int:
        """S, the encoder's positions for the longest waveform."""

    def __call__(
        self, waveforms: Sequence[NDArray[np.floating[Any]]], *, device: torch.device, dtype: torch.dtype
    ) -> EncoderInput:
        """Compute the encoder's input for B mono waveforms, each independently of the others."""

    def tensors(self) -> Iterator[Tensor]:
        """Yield its frozen tensors in a fixed order."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A model as transformers loads it."""

    network: Any  # with its `config` and `generation_config`; in eval mode, float32
    extractor: Any  # computes features of waveforms
    tokenizer: Any  # has `decode` and `get_vocab`


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model as the engine needs it."""

    weights: Weights  # the frozen tensors after the front end
    front_end: FrontEnd  # computes the encoder's input from a waveform
    policy: DecodingPolicy  # which tokens may follow
    prompt: Prompt  # the beginning of each sequence
    # Everything besides the network's tensors that can change a result, as JSON values; part of the digest.
    settings: dict[str, Any]


@runtime_checkable
class Family(Protocol):
    """A kind of speech model with an encoder and a decoder."""

    @property
    def model_type(self) -> str:
        """The `model_type` in the config.json of its models."""

    def read(self, folder: Path) -> Parts:
        """Read a model's files, with weights only from safetensors, without running code that comes with them.

        Args:
            folder: in the layout of `from_pretrained`.

        Raises:
            Exception: whatever transformers raises for missing or broken files; the loader rewords it.
        """

    def make(self, name: str, parts: Parts, *, device: torch.device, precision: Precision) -> PreparedModel:
        """Prepare a model without changing its parts.

        Args:
            name: its name in messages.
            parts: loaded by transformers, or constructed.
            device: the device of the tensors.
            precision: the precision that weights are cast to.

        Raises:
            ModelError: if the parts do not fit together, or something is not supported.
        """


def family_of(model_type: str, name: str, requested: str | None = None) -> Family:
    """Find the family of a model.

    Args:
        model_type: that in its config.json.
        name: the model's name in messages.
        requested: the family to use, as `module:object`; None: that of the model's type, built-in or installed.

    Raises:
        ModelError: there is no family for the type.
        UsageError: `requested` cannot be imported, is not a family, or reads models of another type.
    """
    if requested is not None:
        family = _imported(requested)
        if family.model_type != model_type:
            raise UsageError(
                f"model {name!r} is of the kind {model_type!r}, and the family {requested!r} reads "
                f"{family.model_type!r}; name the family of that kind, or none"
            )
        return family
    known = kinds()
    if model_type not in known:
        raise ModelError(
            f"model {name!r} is of the kind {model_type!r}; those that can be adapted are: "
            f"{', '.join(repr(kind) for kind in sorted(known))}; docs/models.md says how to add a kind"
        )
    return _imported(known[model_type])


def _imported(path: str) -> Family:
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"there is no family {path!r} ({error}); use module:object, such as 'my_package.my_model:FAMILY', and "
            "install the package or put it on PYTHONPATH"
        ) from error
    if not isinstance(found, Family):
        raise UsageError(f"{path!r} is a {type(found).__name__}, not a family: it needs model_type, read and make")
    return found


MAX_LISTED = 3
"""The number of weights of each kind named in an error."""

_HARMLESS = re.compile(r"(?:.*\.)?(?:version|embed_positions\.(?:weights|_float_tensor))")
"""Other content of older weight files: fairseq's format version, and sinusoids that are recomputed."""


def read_network(kind: Any, folder: Path, *, computed: Sequence[str] = (), **options: Any) -> Any:
    """Read a network with the weights in a folder, in eval mode and float32.

    Args:
        kind: the class of transformers, such as `WhisperForConditionalGeneration`.
        folder: in the layout of `from_pretrained`.
        computed: names of weights that transformers computes as in training if a file lacks them.
        options: further arguments of `from_pretrained`.

    Raises:
        ModelError: a weight is missing, has another shape, or is not part of the network; names the first few.
        Exception: whatever transformers raises for missing or broken files.
    """
    with warnings_off():  # a table of what the error below says in words
        network, found = kind.from_pretrained(
            folder,
            use_safetensors=True,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, with their shapes
            **options,
        )
    # transformers initialises missing or mismatched weights randomly and drops unknown ones, with a warning at most;
    # here all three are errors.
    shapes = {name: (tuple(stored), tuple(expected)) for name, stored, expected in found["mismatched_keys"]}
    missing = _without_tied(network, set(found["missing_keys"]) - {*shapes, *computed})
    unexpected = sorted(name for name in found["unexpected_keys"] if not _HARMLESS.fullmatch(name))
    faults = []
    if missing:
        faults.append(f"lack {len(missing)} that its config.json asks for ({_some(missing)})")
    if shapes:
        named = [f"{name} {stored}, not {expected}" for name, (stored, expected) in sorted(shapes.items())]
        faults.append(f"have {len(shapes)} whose shape differs from its config.json ({_some(named)})")
    if unexpected:
        faults.append(f"have {len(unexpected)} that are not in the model of its config.json ({_some(unexpected)})")
    if faults:
        raise ModelError(
            f"the weights in {folder} {', and '.join(faults)}; take config.json and weights from the same "
            "model; if training wrapped it (names begin with base_model. or module.), save the inner model with "
            "its save_pretrained, with adapters merged (merge_and_unload of PEFT)"
        )
    return network.eval()


def _without_tied(network: Any, missing: set[str]) -> list[str]:
    # The missing weights without those that are tied to one that is present.
    state = network.state_dict()
    present = {tensor.data_ptr() for name, tensor in state.items() if name not in missing}
    return sorted(name for name in missing if name not in state or state[name].data_ptr() not in present)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_LISTED]) + (", …" if len(names) > MAX_LISTED else "")


@contextmanager
def warnings_off() -> Iterator[None]:
    """Keep transformers from warning inside the `with` block."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
