"""Utterances adapted in a batch give the results of separate episodes, and the model is unchanged afterwards."""

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import METHODS, AdaptationResult, Adapter, Method, Objective
from emtta_core.adaptation.episode import State, prepare_batch, run, source_parameters
from emtta_core.adaptation.options import Options
from emtta_core.model import SpeechModel, load_model

SECONDS = (0.4, 1.0, 3.9, 1.7, 1.0)
LANGUAGES = ("en", "de", "fr", "en", "de")
IDS = tuple(f"utterance-{index}" for index in range(len(SECONDS)))
STEPS = 2
COMPOSED = (
    Method("sampled-to-go", "sample", Objective(credit="to-go", baseline="none", normalization="sequence")),
    Method("encoder-only", "beam", parameters="encoder-layernorm"),
    Method("decoder-only", "beam", Objective("sequence", credit="to-go"), parameters="decoder-layernorm"),
)
VARIANTS = METHODS | {entry.name: entry for entry in COMPOSED}
USUAL = ("source", "greedy-em", "em-seq", "em-tok", "em-tok-b", "mbr", "suta", "sampled-to-go", "decoder-only")
"""The methods of each kind of candidates, objective and parameters; `-m slow` tries the others."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(make_checkpoint(tmp_path_factory.mktemp("checkpoint")), device="cpu", precision="float64")


@pytest.fixture(scope="module")
def waveforms() -> list[NDArray[np.float32]]:
    return sounds(SECONDS)


OPTIONS = Options(STEPS, candidates=4, learning_rate=1e-2, weight_decay=0.01, seed=7)


def episodes(
    model: SpeechModel, name: str, waveforms: Sequence[NDArray[np.float32]], chosen: Sequence[int]
) -> tuple[list[State], torch.Tensor]:
    batch = prepare_batch(
        model, [waveforms[i] for i in chosen], [LANGUAGES[i] for i in chosen], [IDS[i] for i in chosen]
    )
    return run(model, VARIANTS[name], OPTIONS, batch)


Alone = Callable[[str, int], tuple[list[State], torch.Tensor]]


@pytest.fixture(scope="module")
def alone(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> Alone:
    """A method's episode for one utterance, run by itself."""

    @cache
    def episode(name: str, index: int) -> tuple[list[State], torch.Tensor]:
        return episodes(model, name, waveforms, [index])

    return episode


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
@pytest.mark.parametrize("chosen", [[3, 0, 2], pytest.param([4, 3, 2, 1, 0], marks=pytest.mark.slow)], ids=["3", "5"])
def test_batch_equals_its_parts(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], alone: Alone, name: str, chosen: list[int]
) -> None:
    states, parameters = episodes(model, name, waveforms, chosen)
    moved = torch.zeros(())
    for row, index in enumerate(chosen):
        single, expected = alone(name, index)
        close(parameters[row], expected[0])
        source = source_parameters(model.weights, 1, VARIANTS[name].parameters)
        moved = (expected - source).abs().max()
        adapts = VARIANTS[name].candidates != "none"
        assert len(states) == len(single) == (STEPS + 1 if adapts else 1)
        for state, reference in zip(states, single, strict=True):
            assert state.greedy is not None
            assert reference.greedy is not None
            assert token_list(state.greedy.tokens[row, 0], state.greedy.mask[row, 0]) == token_list(
                reference.greedy.tokens[0, 0], reference.greedy.mask[0, 0]
            )
            close(state.greedy.entropy[row], reference.greedy.entropy[0])
            assert (state.choices is None) == (reference.choices is None)
            if state.choices is not None and reference.choices is not None:
                for choice in range(state.choices.tokens.shape[1]):
                    assert token_list(state.choices.tokens[row, choice], state.choices.mask[row, choice]) == token_list(
                        reference.choices.tokens[0, choice], reference.choices.mask[0, choice]
                    )
            if state.update is None:
                assert reference.update is None
                continue
            assert reference.update is not None
            for numbers, expected_numbers in zip(state.update, reference.update, strict=True):
                assert (numbers is None) == (expected_numbers is None)
                if numbers is not None:
                    close(numbers[row], expected_numbers[0])
    assert (moved > 1e-3) == (VARIANTS[name].candidates != "none")


def test_poisoned_utterance_is_isolated(model: SpeechModel, waveforms: list[NDArray[np.float32]], alone: Alone) -> None:
    for name in ("greedy-em", "em-tok", "em-tok-b"):
        batch = prepare_batch(model, waveforms[:3], LANGUAGES[:3], IDS[:3])
        batch.stem[1] = torch.nan
        _, parameters = run(model, VARIANTS[name], OPTIONS, batch)
        close(parameters[0], alone(name, 0)[1][0])
        close(parameters[2], alone(name, 2)[1][0])


def test_model_is_bit_identical_after_run(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    before = fingerprint(model)
    for name in METHODS:
        Adapter(model, name, steps=2, candidates=3).transcribe(waveforms[:2])
    assert fingerprint(model) == before


def test_order_and_batching_change_nothing(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    order = [4, 1, 0, 3, 2]
    for name in ("em-tok", "em-tok-b"):
        reference = transcribe(model, name, waveforms, range(5), batch_size=16)
        for chosen, size in ((order, 16), (order, 2), (range(5), 1), (range(5), 3)):
            again = transcribe(model, name, waveforms, chosen, batch_size=size)
            for index, result in zip(chosen, again, strict=True):
                same(result, reference[index])


def test_subset_gives_same_results(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    reference = transcribe(model, "em-tok", waveforms, range(5), batch_size=3)
    half = transcribe(model, "em-tok", waveforms, [4, 1, 3], batch_size=3)
    for index, result in zip([4, 1, 3], half, strict=True):
        same(result, reference[index])


def test_two_threads_match_one(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    names = ("em-tok", "em-tok-b", "greedy-em", "em-seq")
    reference = [transcribe(model, name, waveforms, range(4), batch_size=4) for name in names]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda name: transcribe(model, name, waveforms, range(4), batch_size=4), names))
    for left, right in zip(made, reference, strict=True):
        for one, other in zip(left, right, strict=True):
            same(one, other)


def test_adapter_keeps_no_state(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    adapter = Adapter(model, "em-tok", steps=2, candidates=3, learning_rate=1e-2)
    first = adapter.transcribe(waveforms[:2], utterance_ids=IDS[:2])
    adapter.transcribe(waveforms[3:5], utterance_ids=IDS[3:5])
    for one, other in zip(first, adapter.transcribe(waveforms[:2], utterance_ids=IDS[:2]), strict=True):
        same(one, other)


def transcribe(
    model: SpeechModel, name: str, waveforms: list[NDArray[np.float32]], chosen: Sequence[int], batch_size: int
) -> list[AdaptationResult]:
    adapter = Adapter(model, name, steps=2, candidates=3, learning_rate=1e-2, batch_size=batch_size)
    return adapter.transcribe([waveforms[i] for i in chosen], [LANGUAGES[i] for i in chosen], [IDS[i] for i in chosen])


def same(one: AdaptationResult, other: AdaptationResult) -> None:
    assert (one.utterance_id, one.hypothesis, one.source_hypothesis) == (
        other.utterance_id,
        other.hypothesis,
        other.source_hypothesis,
    )
    assert one.flags == other.flags
    for left, right in zip(one.trace, other.trace, strict=True):
        assert (left.step, left.hypothesis, left.tokens) == (right.step, right.hypothesis, right.tokens)
        for field in ("entropy", "loss", "policy_loss", "entropy_loss", "gradient_norm", "candidate_tokens"):
            values = [math.nan if value is None else value for value in (getattr(left, field), getattr(right, field))]
            assert values[0] == pytest.approx(values[1], rel=1e-9, abs=1e-9, nan_ok=True)


def token_list(tokens: torch.Tensor, mask: torch.Tensor) -> list[int]:
    return tokens[mask].tolist()


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


def fingerprint(model: SpeechModel) -> str:
    content = hashlib.sha256()
    for tensor in model.weights.tensors():
        content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()


def test_digest_identifies_checkpoint(tmp_path: Path) -> None:
    first, same_seed = make_checkpoint(tmp_path / "a"), make_checkpoint(tmp_path / "b")
    other = make_checkpoint(tmp_path / "c", seed=1)
    digests = [load_model(folder, device="cpu").digest for folder in (first, same_seed, other)]
    assert digests[0] == digests[1] != digests[2]
