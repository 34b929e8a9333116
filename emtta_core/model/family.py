"""The kinds of model that can be adapted: one file each, which says how a kind is read, takes audio, and is prompted.

A family is an encoder and a decoder with LayerNorm before each block. What they have in common, from the encoder's
first LayerNorm to the logits, is `emtta_core.model.forward`; what a kind has of its own is in its `Family`. See
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
    """What enters the encoder's layers."""

    rows: Tensor  # `(B, S, d)`
    # `(B, 1, 1, S)`, added to attention logits: 0 where there is sound, -inf where there is padding, which must not
    # show in the encoder's output elsewhere; None where all utterances have S positions.
    audible: Tensor | None = None

    @classmethod
    def of(cls, rows: Sequence[Tensor], *, dtype: torch.dtype) -> "EncoderInput":
        """Put rows `(S, d)` of B utterances, each with an S of its own, side by side; `dtype` is that of `audible`."""
        lengths, device = [len(row) for row in rows], rows[0].device
        padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        if len(set(lengths)) == 1:
            return cls(padded)
        beyond = torch.arange(padded.shape[1], device=device) >= torch.tensor(lengths, device=device).unsqueeze(1)
        audible = torch.zeros(beyond.shape, dtype=dtype, device=device).masked_fill_(beyond, -torch.inf)
        return cls(padded, audible[:, None, None, :])


class WaveformLimits(Protocol):
    """Which waveforms a model takes."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def shortest(self) -> int:
        """Samples of the shortest waveform that it takes."""

    @property
    def longest(self) -> int:
        """Samples of the longest: the window."""


class FrontEnd(WaveformLimits, Protocol):
    """All between a waveform and the encoder's first LayerNorm, which is done once an episode."""

    @property
    def positions(self) -> int:
        """S, the encoder's positions for the longest."""

    def __call__(
        self, waveforms: Sequence[NDArray[np.floating[Any]]], *, device: torch.device, dtype: torch.dtype
    ) -> EncoderInput:
        """Make the encoder's input of B mono waveforms: of each the same, whatever the others are."""

    def tensors(self) -> Iterator[Tensor]:
        """Yield its frozen tensors, in a fixed order."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A model as transformers loads it."""

    network: Any  # with its `config` and `generation_config`; in eval mode, float32
    extractor: Any  # what makes features of waveforms
    tokenizer: Any  # has `decode` and `get_vocab`


@dataclass(frozen=True, slots=True)
class Made:
    """A model as the engine needs it."""

    weights: Weights  # the frozen tensors behind the front end
    front_end: FrontEnd  # what makes the encoder's input of a waveform
    policy: DecodingPolicy  # which tokens may follow which
    prompt: Prompt  # what each sequence begins with
    # All besides the network's tensors that can change a result, as JSON has it: it goes into the digest.
    settings: dict[str, Any]


@runtime_checkable
class Family(Protocol):
    """A kind of speech model with an encoder and a decoder."""

    @property
    def model_type(self) -> str:
        """The `model_type` in the config.json of the models that it reads."""

    def read(self, folder: Path) -> Parts:
        """Read a model's files, weights from safetensors alone, and run no code that comes with them.

        Args:
            folder: in the layout of `from_pretrained`.

        Raises:
            Exception: whatever transformers raises for what is missing or broken; the loader says it in its own words.
        """

    def make(self, name: str, parts: Parts, *, device: torch.device, precision: Precision) -> Made:
        """Prepare a model; its parts are not changed.

        Args:
            name: what messages call it.
            parts: as transformers loaded them, or somebody made them.
            device: where tensors go.
            precision: what weights are cast to.

        Raises:
            ModelError: if parts do not fit together, or something is not known.
        """


def family_of(model_type: str, name: str, wanted: str | None = None) -> Family:
    """Find the family of a model.

    Args:
        model_type: that in its config.json.
        name: what messages call the model.
        wanted: the family to take, as `module:object`; None: that of the model's type, emtta's or an installed one.

    Raises:
        ModelError: there is no family for the type.
        UsageError: `wanted` cannot be imported, is no family, or reads models of another type.
    """
    if wanted is not None:
        family = _imported(wanted)
        if family.model_type != model_type:
            raise UsageError(
                f"model {name!r} is of the kind {model_type!r}, and the family {wanted!r} reads {family.model_type!r}; "
                "name the family of that kind, or none"
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
            f"there is no family {path!r} ({error}); give module:object, as 'my_package.my_model:FAMILY', and install "
            "the package or put it on PYTHONPATH"
        ) from error
    if not isinstance(found, Family):
        raise UsageError(f"{path!r} is a {type(found).__name__}, no family: it needs model_type, read and make")
    return found


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
    with warnings_off():  # a table of what is said here in words
        network, found = kind.from_pretrained(
            folder,
            use_safetensors=True,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused here, with their shapes
            **options,
        )
    # transformers fills what is missing with random numbers, and drops what it does not know, with a warning at most:
    # each of the three is an error here.
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
def warnings_off() -> Iterator[None]:
    """Keep transformers from warning inside the `with` block."""
    from transformers.utils import logging

    usual = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(usual)
