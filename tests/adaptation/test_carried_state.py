"""A stream continues from the previous utterance's state; several at once give the same results as each by itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import AdaptationResult, Adapter
from emtta_core.adaptation.optimizer import Carried
from emtta_core.adaptation.parameters import source_parameters
from emtta_core.model import SpeechModel, load_model

SPEECH = sounds((0.4, 1.0, 2.4, 1.7, 0.7, 1.3))
OPTIONS: dict[str, Any] = {"steps": 3, "candidates": 3, "learning_rate": 1e-2, "batch_size": 8}

Stream = Sequence[int]  # indices into SPEECH


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(make_checkpoint(tmp_path_factory.mktemp("checkpoint")), device="cpu", precision="float64")


def run_streams(
    adapter: Adapter, streams: Sequence[Stream]
) -> tuple[list[list[AdaptationResult]], list[Carried | None]]:
    """Advance streams together, without those that have ended; return their results and final states."""
    states: list[Carried | None] = [None] * len(streams)
    results: list[list[AdaptationResult]] = [[] for _ in streams]
    for turn in range(max(map(len, streams))):
        going = [index for index, stream in enumerate(streams) if turn < len(stream)]
        indices = [streams[index][turn] for index in going]
        own = [states[index] for index in going]
        made = adapter.carry([SPEECH[each] for each in indices], "en", [f"u{each}" for each in indices], own)
        for index, result, state in zip(going, made, own, strict=True):
            results[index].append(result)
            states[index] = state
    return results, states


def close(one: Carried | None, other: Carried | None) -> None:
    assert one is not None
    assert other is not None
    for name in ("parameters", "mean", "square", "updates"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "method", ["em-tok-b", *(pytest.param(name, marks=pytest.mark.slow) for name in ("em-tok", "greedy-em", "sar"))]
)
def test_parallel_streams_equal_single(model: SpeechModel, method: str) -> None:
    """The streams differ in length and, because `early_stop` ends some episodes, in the number of updates."""
    adapter = Adapter(model, method, **OPTIONS, early_stop=1e-4)
    streams = [(0, 1, 2), (3, 4), (5, 5, 5), (1,)]
    together, ends = run_streams(adapter, streams)
    for stream, results, end in zip(streams, together, ends, strict=True):
        alone, (own,) = run_streams(adapter, [stream])
        close(end, own)
        assert [result.hypothesis for result in results] == [result.hypothesis for result in alone[0]]
        assert [result.updates for result in results] == [result.updates for result in alone[0]]


def test_first_utterance_is_episode(model: SpeechModel) -> None:
    adapter = Adapter(model, "em-tok-b", **OPTIONS)
    (episode,) = adapter.transcribe(SPEECH[:1], utterance_ids=["u0"])
    ((first, second),), _ = run_streams(adapter, [(0, 0)])
    assert first.trace == episode.trace
    assert second.entropy_before == pytest.approx(first.entropy_after), "it starts from the state that the first left"
    assert second.entropy_after < first.entropy_after


def test_moments_and_updates_are_carried(model: SpeechModel) -> None:
    """Two one-step utterances with the same audio equal one episode of two steps."""
    twice, (state,) = run_streams(Adapter(model, "greedy-em", **OPTIONS | {"steps": 1}), [(2, 2)])
    (episode,) = Adapter(model, "greedy-em", **OPTIONS | {"steps": 2}).transcribe([SPEECH[2]], utterance_ids=["u2"])
    assert twice[0][1].entropy_after == pytest.approx(episode.entropy_after, rel=1e-9)
    assert state is not None
    assert state.updates.tolist() == [2]


@pytest.mark.parametrize(
    ("options", "flag"), [({"adapt_above": 1e6}, "gated"), ({"revert": True, "learning_rate": 10.0}, "reverted")]
)
def test_gate_and_revert_leave_state(model: SpeechModel, options: dict[str, Any], flag: str) -> None:
    states: list[Carried | None] = [None, None]
    Adapter(model, "em-tok-b", **OPTIONS).carry(SPEECH[:2], "en", ["u0", "u1"], states)
    before = list(states)
    results = Adapter(model, "em-tok-b", **OPTIONS | options).carry(SPEECH[2:4], "en", ["u2", "u3"], states)
    assert all(flag in result.flags for result in results)
    assert all(state is old for state, old in zip(states, before, strict=True))
    assert [result.hypothesis for result in results] == [result.source_hypothesis for result in results]


def test_bad_utterance_leaves_state(model: SpeechModel) -> None:
    adapter = Adapter(model, "em-tok-b", **OPTIONS)
    _, (kept, _) = run_streams(adapter, [(0,), (1,)])
    broken: NDArray[np.float32] = np.full(8000, np.nan, np.float32)
    states = [kept, None]
    results = adapter.carry([broken, SPEECH[1]], "en", ["broken", "u1"], states)
    assert results[0].error
    assert states[0] is kept
    _, (other,) = run_streams(adapter, [(1,)])
    close(states[1], other)


def test_diverged_utterance_leaves_state(model: SpeechModel) -> None:
    poisoned = source_parameters(model.weights, 1)
    states: list[Carried | None] = [Carried.begin(torch.full_like(poisoned, torch.nan)), None]
    before = states[0]
    results = Adapter(model, "em-tok-b", **OPTIONS).carry(SPEECH[:2], "en", ["u0", "u1"], states)
    assert "not finite" in str(results[0].error)
    assert results[1].error is None
    assert states[0] is before


def test_batch_size_changes_no_stream(model: SpeechModel) -> None:
    streams = [(0, 1), (2, 3), (4, 5)]
    wide, ends = run_streams(Adapter(model, "em-tok", **OPTIONS), streams)
    narrow, others = run_streams(Adapter(model, "em-tok", **OPTIONS | {"batch_size": 1}), streams)
    for one, other in zip(ends, others, strict=True):
        close(one, other)
    assert [[result.hypothesis for result in stream] for stream in wide] == [
        [result.hypothesis for result in stream] for stream in narrow
    ]
