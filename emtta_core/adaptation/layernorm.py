"""The parameters that are adapted: every LayerNorm's weight and bias, one copy an utterance.

They lie in one tensor `(B, P)`, so that an optimizer that works element by element (AdamW does) runs B separate
episodes in one call.
"""

from torch import Tensor

from emtta_core.model.forward import Norms
from emtta_core.model.weights import Weights


def source_parameters(weights: Weights, batch: int) -> Tensor:
    """Return the LayerNorm parameters as trained, `(B, P)`, one copy for each of `batch` utterances."""
    return weights.norms.flatten().repeat(batch, 1)


def split(weights: Weights, parameters: Tensor) -> Norms:
    """Return the LayerNorms that `parameters` `(B, P)` hold, without a copy."""
    return parameters.view(len(parameters), *weights.norms.shape)
