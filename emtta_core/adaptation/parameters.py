"""The LayerNorm parameters that are adapted, `(B, P)`, one set per utterance, and the frozen ones beside them."""

from functools import cache

import torch
from torch import Tensor

from emtta_core.adaptation.parts import calling, load, refuse_result
from emtta_core.model.forward import Norms
from emtta_core.model.weights import Weights
from emtta_core.plugins import is_plugin


def source_parameters(weights: Weights, batch: int, which: str = "layernorm") -> Tensor:
    """Copy the trained values of the adapted LayerNorm parameters for each of `batch` utterances: `(B, P)`."""
    if is_plugin(which):
        return _vectors(weights)[_selected(weights, which)].flatten().repeat(batch, 1)
    count = weights.encoder_norms
    slices = {"encoder-layernorm": slice(count), "decoder-layernorm": slice(count, None)}
    return weights.norms[slices.get(which, slice(None))].flatten().repeat(batch, 1)


def split(weights: Weights, parameters: Tensor, which: str = "layernorm") -> Norms:
    """View `parameters` `(B, P)`, together with the frozen ones, as the LayerNorms of both halves of the model."""
    count, batch = weights.encoder_norms, len(parameters)
    if is_plugin(which):
        rows = torch.tensor(_selected(weights, which), device=parameters.device)
        vectors = _vectors(weights).expand(batch, -1, -1)
        norms = vectors.index_copy(1, rows, parameters.view(batch, len(rows), -1)).view(batch, *weights.norms.shape)
        return Norms(norms[:, :count], norms[:, count:])
    frozen = weights.norms.expand(batch, -1, -1, -1)
    adapted = parameters.view(batch, -1, *weights.norms.shape[1:])
    return Norms(
        encoder=(frozen if which == "decoder-layernorm" else adapted)[:, :count],
        decoder=(frozen if which == "encoder-layernorm" else adapted)[:, count - len(weights.norms) :],
    )


def _vectors(weights: Weights) -> Tensor:
    # Each LayerNorm's weight and then its bias.
    return weights.norms.flatten(0, 1)


def _selected(weights: Weights, which: str) -> list[int]:
    return _selection(which, tuple(parameter_names(weights)))


@cache
def _selection(which: str, names: tuple[str, ...]) -> list[int]:
    # The indices of the vectors that a plug-in selects by name.
    with calling("parameters", which):
        selected = list(load("parameters", which)(list(names)))
    unknown = [name for name in selected if name not in names]
    if unknown or not selected:
        returned = f"{unknown[0]!r}" if unknown else "no parameter"
        raise refuse_result("parameters", which, returned, f"some of the names it was passed, such as {names[0]!r}")
    return sorted({names.index(name) for name in selected})


def parameter_names(weights: Weights) -> list[str]:
    """The names of a model's LayerNorm weights and, if it has them, biases, in the order of `Weights.norms`."""
    halves = {
        "encoder": (len(weights.encoder_layers), ("self_attn", "final")),
        "decoder": (len(weights.decoder_layers), ("self_attn", "encoder_attn", "final")),
    }
    norms = [
        name
        for half, (layers, kinds) in halves.items()
        for name in (
            *(f"{half}.layers.{layer}.{kind}_layer_norm" for layer in range(layers) for kind in kinds),
            f"{half}.layer_norm",
        )
    ]
    parts = ("weight", "bias")[: weights.norms.shape[1]]
    return [f"{norm}.{part}" for norm in norms for part in parts]
