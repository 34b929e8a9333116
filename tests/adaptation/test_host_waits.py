"""The token loop keeps an accelerator busy: the host waits for it once per token, for the number of nodes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from whisper_factory import sounds

from emtta_core.adaptation.episode import source_parameters, split
from emtta_core.model import forward, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Greedy, Sampled, Strategy, generate

WAITS = {
    *("tolist", "item", "cpu", "numpy", "__int__", "__float__", "__bool__", "__index__"),
    *("nonzero", "argwhere", "unique", "unique_consecutive", "masked_select", "bincount", "equal"),
}
"""Functions that copy numbers to the host, or whose result's size depends on numbers."""


class HostWaits(TorchFunctionMode):
    """Counts calls for which the host would wait for an accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = function.__name__, kwargs or {}
        by_mask = name in ("__getitem__", "__setitem__") and any(is_mask(part) for part in indices(args[1]))
        unsized = name == "repeat_interleave" and "output_size" not in kwargs
        self.count += name in WAITS or by_mask or unsized
        return function(*args, **kwargs)


def indices(index: Any) -> Sequence[Any]:
    return index if isinstance(index, tuple) else (index,)


def is_mask(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype == torch.bool


@pytest.mark.parametrize("limits", [[24, 24, 24], [3, 9, 24]], ids=["together", "one after another"])
@pytest.mark.parametrize("kind", ["beam", "sampled"])
def test_host_waits_once_per_token(tiny_model: Path, kind: str, limits: list[int]) -> None:
    model = load_model(tiny_model, device="cpu")
    mel = model.front_end.mel(sounds([1.0, 1.5, 2.0]), device=model.device, dtype=model.dtype)
    norms = split(model.weights, source_parameters(model.weights, len(limits)))
    encoded = forward.encode(model.weights, norms.encoder, model.front_end.stem(mel))
    memory = forward.cross_memory(model.weights, encoded)
    prompt = model.prompt.rows(["en"] * len(limits), model.device)
    strategies: list[Strategy] = [BeamSearch(4) if kind == "beam" else Sampled(torch.arange(3), 4), Greedy()]
    with HostWaits() as waits:
        made = generate(model.weights, norms.decoder, memory, prompt, model.policy, torch.tensor(limits), strategies)
    tokens = int(made[0].mask.sum(-1).max())
    before_and_after = 5  # the longest limit, for the loop and each strategy; each strategy's longest hypothesis
    assert tokens > before_and_after
    assert waits.count <= tokens + before_and_after
