"""The parameters that are adapted: LayerNorms' weights and biases, one copy an utterance.

They lie in one tensor `(B, P)`, so that an optimizer that works element by element (AdamW does) runs B separate
episodes in one call.
"""

from torch import Tensor

from emtta_core.adaptation.methods import Parameters
from emtta_core.model.forward import Norms
from emtta_core.model.weights import Weights


def source_parameters(weights: Weights, batch: int, which: Parameters = "layernorm") -> Tensor:
    """Return the adapted LayerNorm parameters as trained, `(B, P)`, one copy for each of `batch` utterances."""
    return weights.norms[_place(weights, which)].flatten().repeat(batch, 1)


def split(weights: Weights, parameters: Tensor, which: Parameters = "layernorm") -> Norms:
    """Return the LayerNorms, of which `parameters` `(B, P)` hold those adapted, without a copy."""
    count = weights.encoder_norms
    own = parameters.view(len(parameters), -1, *weights.norms.shape[1:])
    source = weights.norms.expand(len(parameters), -1, -1, -1)
    if which == "encoder-layernorm":
        return Norms(own, source[:, count:])
    if which == "decoder-layernorm":
        return Norms(source[:, :count], own)
    return Norms(own[:, :count], own[:, count:])


def _place(weights: Weights, which: Parameters) -> slice:
    """Return where the adapted LayerNorms stand among all."""
    count = weights.encoder_norms
    places = {"encoder-layernorm": slice(count), "decoder-layernorm": slice(count, None)}
    return places.get(which, slice(None))
