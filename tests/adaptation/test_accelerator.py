"""All of the engine's tensors stay on the model's device, and its results there equal those on a CPU."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generic_factory import make_moonshine
from long_audio import LONG, outcomes, prepared, result
from pretend_accelerator import PretendAccelerator, pretend_accelerator
from speech2text_factory import make_speech2text
from torch import Tensor
from whisper_factory import sounds

from emtta_core.adaptation import METHODS, AdaptationResult, Adapter, Method, Objective
from emtta_core.adaptation.batch_size import SHARE, episode_bytes
from emtta_core.model import Model, SpeechModel, TransformersModel, load_model
from emtta_core.model.load import from_transformers
from emtta_core.model.speech_model import detect_language
from emtta_core.model.whisper import FAMILY

WAVEFORMS = sounds([0.1, 0.4])
USUAL = ("source", "source-beam", "em-tok", "em-tok-b+mbr")
"""Together, these have each kind of candidates and decision; `-m slow` tries the others."""
ENCODER = Method("encoder", "sample", Objective(credit="to-go"), parameters="encoder-layernorm")
DECODER = Method("decoder", "beam", Objective(baseline="none"), parameters="decoder-layernorm")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendAccelerator]:
    with pretend_accelerator(monkeypatch) as entered:
        yield entered


def transcribed(
    model: Model, method: str | Method, waveforms: Sequence[np.ndarray] = WAVEFORMS, **options: Any
) -> list[AdaptationResult]:
    adapter = Adapter(model, method, **{"steps": 1, "candidates": 3, **options})
    return [dataclasses.replace(found, seconds=0.0) for found in adapter.transcribe(waveforms)]


def on_both(load: Callable[[str], Model], act: Callable[[Model], Any]) -> tuple[Any, Any]:
    """Run `act` with the model on the pretended device and on a CPU, outside of it; return both results."""
    here = act(load("cpu"))
    with pytest.MonkeyPatch.context() as patch, pretend_accelerator(patch):
        return act(load("cuda:0")), here


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *(
            pytest.param(name, {}, marks=() if name in USUAL else pytest.mark.slow)
            for name in METHODS
            if not name.startswith("em-tok-e") and name != "em-tok-policy"
        ),
        pytest.param("em-tok", {"redraw": False, "trace": "metrics"}, marks=pytest.mark.slow),
        ("em-tok-b", {"steps": 4, "early_stop": 0.1}),
        pytest.param(ENCODER, {}, marks=pytest.mark.slow),
        (DECODER, {"trace": "none"}),
    ],
    ids=lambda value: value.name if isinstance(value, Method) else str(value),
)
def test_every_method_matches_cpu(tiny_model: Path, method: str | Method, options: dict[str, Any]) -> None:
    there, here = on_both(
        lambda name: load_model(tiny_model, device=name),
        lambda model: transcribed(model, method, **{"steps": 2, **options}),
    )
    assert there == here


def test_all_weights_are_on_device(tiny_model: Path, device: PretendAccelerator) -> None:
    model = load_model(tiny_model, device="cuda:0")
    assert {tensor.device.type for tensor in (*model.weights.tensors(), *model.front_end.tensors())} == {"cuda"}


def by_default(model: Model) -> list[AdaptationResult]:
    return transcribed(model, "em-tok-b+mbr")


@pytest.mark.parametrize("precision", ["bf16", "float64"])
def test_every_precision_matches_cpu(tiny_model: Path, precision: str) -> None:
    there, here = on_both(lambda name: load_model(tiny_model, device=name, precision=precision), by_default)
    assert there == here


@pytest.mark.parametrize("make", [make_speech2text, make_moonshine])
def test_padding_family_matches_cpu(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path)
    there, here = on_both(lambda name: load_model(folder, device=name), by_default)
    assert there == here


def test_generic_path_matches_cpu(tiny_model: Path) -> None:
    def load(name: str) -> TransformersModel:
        model = load_model(tiny_model, device=name, family="transformers")
        assert isinstance(model, TransformersModel)
        # Of the fused attention kernels, the pretended device implements only the fast path's.
        model.network.set_attn_implementation("eager")
        return model

    there, here = on_both(load, lambda model: transcribed(model, "em-tok-b+mbr", WAVEFORMS[:1]))
    assert there == here


def test_detection_and_cuts_match_cpu(tiny_model: Path) -> None:
    def act(model: Model) -> tuple[Any, ...]:
        cut = outcomes(model, prepared(long=LONG), "cut")["long"]
        assert len(cut.windows) == 2
        return detect_language(model, WAVEFORMS[0]), result(cut)

    there, here = on_both(lambda name: load_model(tiny_model, device=name), act)
    assert there == here


def test_preloaded_network_matches(tiny_model: Path, device: PretendAccelerator) -> None:
    here = load_model(tiny_model, device="cpu")
    parts = FAMILY.read(tiny_model)
    moved = from_transformers(parts.network.to("cuda:0"), parts.extractor, parts.tokenizer, name="m", device="cuda:0")
    assert moved.digest == here.digest
    assert transcribed(moved, "source") == transcribed(here, "source")


def test_batch_fills_device_memory(tiny_model: Path, device: PretendAccelerator) -> None:
    model = load_model(tiny_model, device="cuda:0")
    adapter = Adapter(model, "em-tok-b", steps=1, candidates=3)
    longest = model.policy.max_tokens(0.4, "en", model.prompt.length)
    device.room = device.held + int(2.5 * episode_bytes(model, adapter.method, adapter.options, longest) / SHARE)
    assert [len(batch) for batch in adapter.batches([*WAVEFORMS, WAVEFORMS[1]])] == [2, 1]


def test_oversized_batch_is_halved(
    tiny_model: Path, device: PretendAccelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny_model, device="cuda:0")
    at_rest, emptied = device.held, list[int]()
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: emptied.append(device.held))
    usual = transcribed(model, "em-tok-b", batch_size=2)
    device.room = at_rest + 3 * (device.most - at_rest) // 4
    halved = transcribed(model, "em-tok-b", batch_size=2)
    assert [found.hypothesis for found in halved] == [found.hypothesis for found in usual]
    assert emptied == [at_rest]
    assert device.held == at_rest


def test_oversized_utterance_frees_memory(tiny_model: Path, device: PretendAccelerator) -> None:
    model = load_model(tiny_model, device="cuda:0")
    at_rest = device.held
    usual = transcribed(model, "em-tok-b")
    device.room, roomy = at_rest + (device.most - at_rest) // 4, device.room
    lost = transcribed(model, "em-tok-b", batch_size=1)
    assert all("out of memory with this utterance" in str(found.error) for found in lost)
    assert device.held == at_rest
    device.room = roomy
    assert transcribed(model, "em-tok-b") == usual


def test_host_waits_ignore_batch_size(tiny_model: Path, device: PretendAccelerator) -> None:
    model = load_model(tiny_model, device="cuda:0")
    for method in ("em-tok", "em-tok-b+mbr"):
        counts = []
        for copies in (1, 3):
            device.waits = 0
            transcribed(model, method, WAVEFORMS[:1] * copies)  # equal ids, so equal candidates
            counts.append(device.waits)
        assert counts[0] == counts[1] > 0


def left_behind(model: SpeechModel) -> list[AdaptationResult]:
    """Transcribe with one of the policy's tensors left in host memory."""
    policy = dataclasses.replace(model.policy, bias=torch.zeros(len(model.policy.bias)))
    return transcribed(dataclasses.replace(model, policy=policy), "source")


MIXED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "added": lambda there, here: there + here,
    "added in place": lambda there, here: here.add_(there),
    "multiplied": lambda there, here: there @ here,
    "joined": lambda there, here: torch.cat([there, here]),
    "chosen from": lambda there, here: torch.where(there > 0, there, here),
    "picked by": lambda there, here: there.index_select(0, here.argmax(0)),
    "picked from": lambda there, here: here[there.argmax(0)],
    "attended to": lambda there, here: torch.nn.functional.scaled_dot_product_attention(
        *(part.view(1, 1, 4, 4) for part in (there, there, here))
    ),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_mixed_device_tensors_are_refused(device: PretendAccelerator, mix: Callable[[Tensor, Tensor], Any]) -> None:
    there, here = torch.randn(4, 4, device="cuda:0"), torch.randn(4, 4)
    with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cpu"):
        mix(there, here)


def test_leftover_host_tensor_is_refused(tiny_model: Path, device: PretendAccelerator) -> None:
    with pytest.raises(RuntimeError, match=r"at least two devices.*aten\.add"):
        left_behind(load_model(tiny_model, device="cuda:0"))


def test_scalars_may_be_on_host(device: PretendAccelerator) -> None:
    there = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda:0")
    assert (there * torch.tensor(2.0))[torch.tensor([1])].tolist() == [[6.0, 8.0]]
    there[[0]] = torch.tensor(5.0)
    assert there.cpu().numpy().tolist() == [[5.0, 5.0], [3.0, 4.0]]
    with pytest.raises((TypeError, RuntimeError), match="numpy"):
        there.numpy()
