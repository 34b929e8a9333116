"""The public interface: waveforms in, results and traces out; unusable input fails without affecting the rest.

One long file, because options, errors, traces and memory all concern the one class that users call.
"""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from whisper_factory import make_checkpoint, sounds

import emtta_core
from emtta_core.adaptation import METHODS, Adapter, Method, Objective, method
from emtta_core.adaptation.batch_size import episode_bytes
from emtta_core.adaptation.episode import Batch, candidate_loss, prepare_batch, run, split
from emtta_core.adaptation.methods import OBJECTIVES
from emtta_core.adaptation.options import Options
from emtta_core.errors import UsageError
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.candidates import Hypotheses
from emtta_core.model.policy import TOKENS_MARGIN

STEPS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(make_checkpoint(tmp_path_factory.mktemp("checkpoint")), device="cpu")


@pytest.fixture(scope="module")
def waveforms() -> list[NDArray[np.float32]]:
    return sounds([2.0, 0.5, 3.0])


@pytest.mark.parametrize("name", METHODS)
def test_result_records_every_state(model: SpeechModel, waveforms: list[NDArray[np.float32]], name: str) -> None:
    adapter = Adapter(model, name, steps=STEPS, candidates=3)
    results = adapter.transcribe(waveforms, language=["en", "de", "fr"], utterance_ids=["a", "b", "c"])
    assert [result.utterance_id for result in results] == ["a", "b", "c"]
    for result in results:
        assert result.error is None
        chosen = METHODS[name]
        assert result.updates == (0 if chosen.candidates == "none" else STEPS)
        assert len(result.trace) == result.updates + 1
        assert [record.step for record in result.trace] == list(range(len(result.trace)))
        assert result.trace[0].hypothesis == result.source_hypothesis
        if chosen.decision == "greedy":
            assert result.trace[-1].hypothesis == result.hypothesis
            assert result.trace[-1].tokens == result.tokens
        assert result.entropy_before == result.trace[0].entropy
        assert result.entropy_after == result.trace[-1].entropy
        assert result.seconds > 0
        for record in result.trace:
            assert record.entropy is not None
            assert record.entropy >= 0
            assert record.tokens is not None
            assert record.tokens > 0
        for record in result.trace[:-1]:
            assert record.gradient_norm is not None
            assert record.gradient_norm > 0 or name.endswith("reward")  # equal samples have zero advantage
            assert record.candidate_tokens is not None
            assert record.candidate_tokens >= 1
            assert record.candidate_entropy is not None
            if isinstance(chosen.objective, Objective):
                assert record.loss == pytest.approx((record.policy_loss or 0) + (record.entropy_loss or 0), rel=1e-5)
                assert (record.policy_loss != 0) == chosen.objective.policy
                assert (record.entropy_loss != 0) == chosen.objective.entropy
        last = result.trace[-1]
        assert last.loss is last.policy_loss is last.entropy_loss is last.gradient_norm is None
        assert last.candidate_entropy is last.advantage_std is last.candidate_tokens is None


@pytest.mark.parametrize("name", ["source-beam", "em-tok-b+beam"])
def test_best_beam_is_likelier_than_greedy(model: SpeechModel, waveforms: list[NDArray[np.float32]], name: str) -> None:
    adapter = Adapter(model, name, steps=2, candidates=3, learning_rate=1e-2, beams=6)
    batch = prepare_batch(model, waveforms, ["en"] * 3, ["a", "b", "c"])
    states, parameters = run(model, adapter.method, adapter.options, batch)
    norms = split(model.weights, parameters)
    memory = forward.cross_memory(model.weights, forward.encode(model.weights, norms.encoder, batch.stem))

    def mean_log_prob(made: Hypotheses | None) -> torch.Tensor:
        assert made is not None
        first = Hypotheses(made.tokens[:, :1], made.mask[:, :1], made.ended[:, :1])
        alone = Method("sum", "greedy", Objective("sequence", baseline="none"))
        loss, _ = candidate_loss(model, alone, norms, memory, batch.prompt, first)
        return -loss.advantage[:, 0, 0] / first.mask.sum((1, 2))

    with torch.no_grad():
        best, greedy = mean_log_prob(states[-1].choices), mean_log_prob(states[-1].greedy)
    assert (best >= greedy - 1e-5).all()
    results = adapter.transcribe(waveforms, utterance_ids=["a", "b", "c"])
    for row, result in enumerate(results):
        assert states[-1].choices is not None
        assert result.tokens == int(states[-1].choices.mask[row, 0].sum())
        assert result.greedy_tokens == result.trace[-1].tokens
    assert [result.hypothesis for result in results] != [result.trace[-1].hypothesis for result in results]


def test_adapting_lowers_entropy(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    for result in Adapter(model, "greedy-em", steps=8).transcribe(waveforms):
        assert result.entropy_after < result.entropy_before


def test_every_method_starts_from_source(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    expected = [result.hypothesis for result in Adapter(model, "source").transcribe(waveforms)]
    for name in METHODS:
        results = Adapter(model, name, steps=1, candidates=2).transcribe(waveforms)
        assert [result.source_hypothesis for result in results] == expected


def test_trace_hypotheses_are_optional(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    for name in ("em-tok", "em-tok-b"):
        full = Adapter(model, name, steps=STEPS, candidates=3)
        brief = Adapter(model, name, steps=STEPS, candidates=3, trace="metrics")
        for one, other in zip(brief.transcribe(waveforms), full.transcribe(waveforms), strict=True):
            assert (one.hypothesis, one.source_hypothesis) == (other.hypothesis, other.source_hypothesis)
            assert [record.hypothesis is None for record in one.trace] == [False, True, True, False]
            assert one.trace[1].entropy is one.trace[1].tokens is None
            assert one.trace[1].loss == pytest.approx(other.trace[1].loss, rel=1e-3)


BAD = {
    "three axes": (np.ones((100, 2, 2), dtype=np.float32), r"shape \(100, 2, 2\)"),
    "empty": (np.zeros(0, dtype=np.float32), "empty"),
    "NaN": (np.array([0.1, np.nan, 0.2], dtype=np.float32), "1 samples of 3"),
    "infinite": (np.array([0.1, np.inf, -np.inf], dtype=np.float32), "2 samples of 3"),
    "silent": (np.zeros(1000, dtype=np.float32), "silent"),
    "next to silent": (np.full(1000, 9e-6, dtype=np.float32), "silent.*9e-06"),
    "too long": (np.ones(64_001, dtype=np.float32), r"4\.00 s.*at most 4 s"),
    "not of full scale 1": (np.full(1000, 16384.0), "16384.*32768"),
}


def test_bad_waveform_fails_alone(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    adapter = Adapter(model, "em-tok", steps=2, candidates=3, batch_size=2)
    expected = adapter.transcribe(waveforms, utterance_ids=["a", "b", "c"])
    bad = [waveform for waveform, _ in BAD.values()]
    mixed = [bad[0], waveforms[0], *bad[1:4], waveforms[1], waveforms[2], *bad[4:]]
    ids = ["0", "a", "1", "2", "3", "b", "c", *(str(index) for index in range(4, len(bad)))]
    results = {result.utterance_id: result for result in adapter.transcribe(mixed, utterance_ids=ids)}
    assert list(results) == ids
    for reference in expected:
        assert results[reference.utterance_id].hypothesis == reference.hypothesis
        assert results[reference.utterance_id].error is None
    for index in range(len(bad)):
        refused = results[str(index)]
        assert refused.error is not None
        assert (refused.hypothesis, refused.source_hypothesis, refused.trace) == ("", "", ())
        assert math.isnan(refused.entropy_before)
        assert math.isnan(refused.entropy_after)


@pytest.mark.parametrize("name", BAD)
def test_error_gives_reason_and_numbers(model: SpeechModel, name: str) -> None:
    waveform, message = BAD[name]
    (result,) = Adapter(model, "source").transcribe([waveform])
    assert result.error is not None
    assert re.search(message, result.error)


def test_no_waveforms_no_results(model: SpeechModel) -> None:
    assert Adapter(model, "source").transcribe([]) == []
    assert list(Adapter(model, "source").batches([])) == []


def test_batches_are_ordered_by_duration(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    adapter = Adapter(model, "source", batch_size=2)
    made = list(adapter.batches([waveforms[0], np.zeros(10, dtype=np.float32), *waveforms[1:]], "en", list("abcd")))
    assert [[result.utterance_id for result in batch] for batch in made] == [["b"], ["c", "a"], ["d"]]


def test_each_batch_is_yielded_when_done(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []

    def recorded(model: SpeechModel, method: Method, options: Options, batch: Batch, *rest: Any) -> Any:
        events.append(("run", len(batch.ids)))
        return run(model, method, options, batch, *rest)

    monkeypatch.setattr("emtta_core.adaptation.paths.run", recorded)
    recordings = [waveforms[0], np.zeros(10, dtype=np.float32), *waveforms[1:]]
    for results in Adapter(model, "source", batch_size=2).batches(recordings):
        events.append(("yielded", len(results)))
    # The silent one, which is refused, comes first.
    assert events == [("yielded", 1), ("run", 2), ("yielded", 2), ("run", 1), ("yielded", 1)]


def test_missing_id_is_derived_from_audio(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    adapter = Adapter(model, "source")
    forwards = adapter.transcribe(waveforms)
    backwards = adapter.transcribe(waveforms[::-1])[::-1]
    assert [result.utterance_id for result in forwards] == [result.utterance_id for result in backwards]
    assert len({result.utterance_id for result in forwards}) == len(waveforms)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "em-word"}, "'em-word'.*em-seq.*source"),
        ({"steps": 0}, "steps is 0; it must be a whole number, at least 1 and at most 1000"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"redraw": "no"}, "redraw is 'no'; it must be True or False"),
        ({"stepz": 3}, r"unknown option 'stepz' \(did you mean 'steps'\?\)"),
        ({"candidates": 0}, "candidates is 0"),
        ({"candidates": 1000}, "candidates is 1000.*at most"),
        ({"beams": 1}, "beams is 1; it must be a whole number, at least 2"),
        ({"method": "source-beam", "beams": 1000}, "beams is 1000.*at most"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"betas": (0.9, 1.0)}, "betas is .0.9, 1.0.; it must be 2 numbers, each at least 0 and below 1"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "much"}, "batch_size is 'much'.*'auto'"),
        ({"early_stop": -1.0}, "early_stop is -1.0"),
        ({"adapt_above": -0.1}, "adapt_above is -0.1; it must be a number, at least 0"),
        ({"revert": 1}, "revert is 1; it must be True or False"),
        ({"trace": "all"}, "trace 'all'.*hypotheses, metrics, none"),
    ],
)
def test_out_of_range_options_are_refused(model: SpeechModel, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Adapter(model, **wrong)


def test_first_tokens_limit_candidates(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    bias = torch.full_like(model.policy.bias, -torch.inf)
    bias[[2, 3, 4, 5, 6, 8, model.policy.end]] = 0.0
    few = replace(model, policy=replace(model.policy, bias=bias, first_bias=bias))
    with pytest.raises(UsageError, match=r"candidates is 4; with 7 tokens .* at most 3"):
        Adapter(few, "em-tok-b", candidates=4)
    with pytest.raises(UsageError, match=r"beams is 4; with 7 tokens .* at most 3"):
        Adapter(few, "source-beam", beams=4)
    for result in Adapter(few, "em-tok-b", steps=2, candidates=3).transcribe(waveforms):
        assert result.error is None


def test_languages_and_ids_are_checked(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    adapter = Adapter(model, "source")
    with pytest.raises(UsageError, match="language has 2 entries for 3 waveforms"):
        adapter.transcribe(waveforms, language=["en", "de"])
    with pytest.raises(UsageError, match="utterance_ids has 1 entries for 3 waveforms"):
        adapter.transcribe(waveforms, utterance_ids=["a"])
    with pytest.raises(UsageError, match=r"'xx'.*de, en, fr"):
        adapter.transcribe(waveforms, language="xx")


def test_divergence_is_reported(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    result = Adapter(model, "em-tok", steps=4, candidates=3, learning_rate=1e30).transcribe(waveforms)[0]
    assert result.error is not None
    assert "diverged" in result.error
    assert (result.hypothesis, result.flags) == ("", ())
    assert math.isnan(result.entropy_after)
    assert result.source_hypothesis == result.trace[0].hypothesis
    assert math.isfinite(result.entropy_before)


@pytest.mark.parametrize("name", ["source", "mbr", "em-tok-b"])
def test_nonfinite_model_is_not_divergence(model: SpeechModel, waveforms: list[NDArray[np.float32]], name: str) -> None:
    norms = model.weights.norms.clone()
    norms[0] = math.nan
    broken = replace(model, weights=replace(model.weights, norms=norms))
    for result in Adapter(broken, name, steps=2, candidates=3).transcribe(waveforms):
        assert result.error is not None
        assert "the model's output is not finite" in result.error
        assert "diverged" not in result.error
        assert "learning rate" not in result.error


def test_halved_batch_keeps_results(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Adapter(model, "em-tok", steps=2, candidates=3).transcribe(waveforms)
    tried: list[int] = []

    def tight(model: SpeechModel, method: Method, options: Options, batch: Batch, *rest: Any) -> Any:
        tried.append(len(batch.ids))
        if len(batch.ids) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return run(model, method, options, batch, *rest)

    monkeypatch.setattr("emtta_core.adaptation.paths.run", tight)
    adapter = Adapter(model, "em-tok", steps=2, candidates=3)
    results = adapter.transcribe(waveforms)
    assert [result.hypothesis for result in results] == [result.hypothesis for result in usual]
    assert tried == [3, 1, 1, 1]
    assert adapter.batch_size == 1  # the next call does not retry the size that did not fit


@pytest.mark.parametrize(("choice", "sizes"), [("auto", [4, 2, 2, 6, 6]), (4, [4, 2, 2, 2, 2, 2, 2, 2, 2])])
def test_short_batches_stay_large(
    model: SpeechModel, monkeypatch: pytest.MonkeyPatch, choice: Any, sizes: list[int]
) -> None:
    tried: list[int] = []

    def tight(model: SpeechModel, method: Method, options: Options, batch: Batch, *rest: Any) -> Any:
        tried.append(len(batch.ids))
        if len(batch.ids) > 2 and int(batch.limits.max()) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(model, method, options, batch, *rest)

    monkeypatch.setattr("emtta_core.adaptation.paths.run", tight)
    # As for a large model, where each token of a hypothesis takes memory.
    monkeypatch.setattr("emtta_core.adaptation.batch_size.episode_bytes", lambda *given: 2**20 * given[-1])
    monkeypatch.setattr("emtta_core.adaptation.batch_size.free_bytes", lambda device: 2.0**40)
    adapter = Adapter(model, "source", batch_size=choice)
    adapter.transcribe(sounds([3.0, 3.0, 3.0, 3.0]))
    adapter.transcribe(sounds([0.1] * 12))
    assert tried == sizes


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nMore")])
def test_oversized_utterance_fails_alone(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    usual = Adapter(model, "em-tok", steps=2, candidates=3).transcribe(waveforms)

    def tight(model: SpeechModel, method: Method, options: Options, batch: Batch, *rest: Any) -> Any:
        if int(batch.limits.max()) == longest:
            raise error
        return run(model, method, options, batch, *rest)

    longest = model.policy.max_tokens(3.0, "en", model.prompt.length)
    monkeypatch.setattr("emtta_core.adaptation.paths.run", tight)
    results = Adapter(model, "em-tok", steps=2, candidates=3).transcribe(waveforms)
    assert [result.hypothesis for result in results] == [usual[0].hypothesis, usual[1].hypothesis, ""]
    assert [result.error is None for result in results] == [True, True, False]
    reason = str(error).partition("\n")[0] or "not enough memory"
    assert results[2].error == (
        f"out of memory with this utterance of 3.00 s alone with 3 candidates ({reason}); "
        "use fewer candidates, the precision bf16 or a GPU with more memory"
    )
    (both, *_) = Adapter(model, "em-tok-b+beam", steps=2, candidates=3, beams=4).transcribe(waveforms[2:])
    assert "alone with 3 candidates and with 4 beams (" in str(both.error)
    assert "use fewer candidates, fewer beams, the precision" in str(both.error)
    (source, *_) = Adapter(model, "source").transcribe(waveforms[2:])
    assert "alone (" in str(source.error)
    assert "candidates" not in str(source.error)


def test_engine_bug_is_not_out_of_memory(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("emtta_core.adaptation.paths.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        Adapter(model, "source").transcribe(waveforms)


def test_endless_hypothesis_is_cut(tmp_path: Path, waveforms: list[NDArray[np.float32]]) -> None:
    endless = load_model(make_checkpoint(tmp_path, end_bias=-1000.0), device="cpu")
    for name in ("greedy-em", "em-tok", "em-tok-b"):
        for result in Adapter(endless, name, steps=2, candidates=3).transcribe(waveforms):
            assert "truncated" in result.flags
            assert result.trace[-1].tokens is not None
            assert result.trace[-1].tokens <= endless.policy.max_tokens(3.0, "en", endless.prompt.length)


def test_length_limit_depends_on_language(tmp_path: Path) -> None:
    endless = load_model(make_checkpoint(tmp_path, end_bias=-1000.0, languages=("en", "hi")), device="cpu")
    results = Adapter(endless, "source").transcribe(sounds([0.5, 0.5]), language=["en", "hi"])
    assert [result.tokens for result in results] == [0.5 * 12 + TOKENS_MARGIN, 0.5 * 30 + TOKENS_MARGIN]


def test_used_options_are_declared() -> None:
    assert method("source").options == ()
    update = ("learning_rate", "weight_decay", "betas", "epsilon", "redraw")
    gate = ("adapt_above", "revert")
    assert method("greedy-em").options == ("steps", *update, "early_stop", *gate)
    assert method("em-tok").options == ("steps", "candidates", *update, "seed", "early_stop", *gate)
    assert method("em-tok-b").options == ("steps", "candidates", *update, "early_stop", *gate)
    assert method("source-beam").options == ("beams",)
    assert method("mbr").options == ("candidates", "seed")
    assert method("em-tok-b+beam").options == ("steps", "candidates", *update, "beams", "early_stop", *gate)
    assert method("em-tok-b+mbr").options == ("steps", "candidates", *update, "seed", "early_stop", *gate)
    order = ["source", "source-beam", "greedy-em", "em-seq", "em-tok", "em-tok-b", "em-tok-policy", "em-tok-entropy"]
    assert list(METHODS) == [*order, "mbr", "em-tok-b+beam", "em-tok-b+mbr", *OBJECTIVES]
    assert method("sgem").options == method("em-tok-b").options
    assert method("sar").options == method("greedy-em").options


def test_unused_options_change_nothing(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    changed: dict[str, Any] = {
        **{"steps": 5, "candidates": 5, "redraw": False, "learning_rate": 2e-3, "weight_decay": 0.1},
        **{
            "betas": (0.5, 0.6),
            "epsilon": 1e-3,
            "beams": 5,
            "seed": 9,
            "early_stop": 1e9,
            "adapt_above": 1e9,
            "revert": True,
        },
    }
    base = {
        **{"steps": 2, "candidates": 3, "redraw": True, "learning_rate": 1e-3, "weight_decay": 0.01},
        **{
            "betas": (0.9, 0.999),
            "epsilon": 1e-8,
            "beams": 3,
            "seed": 0,
            "early_stop": None,
            "adapt_above": None,
            "revert": False,
        },
    }
    for name in ("source", "source-beam", "greedy-em", "em-tok-b", "mbr"):
        unused = set(changed) - set(method(name).options)
        mixed = base | {option: changed[option] for option in unused}
        one = Adapter(model, name, **base).transcribe(waveforms)
        other = Adapter(model, name, **mixed).transcribe(waveforms)
        for left, right in zip(one, other, strict=True):
            assert (left.hypothesis, left.trace) == (right.hypothesis, right.trace)


@pytest.mark.parametrize(
    "name",
    ["greedy-em", *(pytest.param(name, marks=pytest.mark.slow) for name in ("em-tok", "em-tok-b", "em-tok-b+mbr"))],
)
def test_early_stop_when_entropy_settles(model: SpeechModel, waveforms: list[NDArray[np.float32]], name: str) -> None:
    tolerance = 0.02
    options: dict[str, Any] = {"candidates": 3, "learning_rate": 3e-3, "batch_size": 3}
    whole = Adapter(model, name, steps=12, **options).transcribe(waveforms)
    ended = Adapter(model, name, steps=12, early_stop=tolerance, **options).transcribe(waveforms)
    alone = Adapter(model, name, steps=12, early_stop=tolerance, **options | {"batch_size": 1}).transcribe(waveforms)
    for short, single, long in zip(ended, alone, whole, strict=True):
        entropies = [record.candidate_entropy or 0.0 for record in long.trace[:-1]]
        moves = [abs(after - before) for before, after in itertools.pairwise(entropies)]
        settled = next((step + 2 for step, move in enumerate(moves) if move <= tolerance), 12)
        assert short.updates == single.updates == settled
        assert [record.loss for record in short.trace[:-1]] == pytest.approx(
            [record.loss for record in long.trace[:settled]], rel=1e-3
        )
        if name != "em-tok-b+mbr":
            assert short.hypothesis == single.hypothesis == long.trace[settled].hypothesis
        assert short.hypothesis == single.hypothesis
    assert min(result.updates for result in ended) < max(result.updates for result in ended)


@pytest.mark.parametrize("name", ["em-tok-b", "mbr"])
def test_trace_does_not_affect_results(model: SpeechModel, waveforms: list[NDArray[np.float32]], name: str) -> None:
    whole = Adapter(model, name, steps=3, candidates=3).transcribe(waveforms)
    bare = Adapter(model, name, steps=3, candidates=3, trace="none").transcribe(waveforms)
    for one, other in zip(whole, bare, strict=True):
        assert other.trace == ()
        assert replace(one, trace=(), seconds=0.0) == replace(other, seconds=0.0)


def test_batch_size_fills_memory(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = Adapter(model, "em-tok-b", steps=1, candidates=3)
    reference = adapter.transcribe(waveforms)
    assert adapter.batch_size == 3
    longest = model.policy.max_tokens(3.0, "en", model.prompt.length)
    room = 2.5 * episode_bytes(model, adapter.method, adapter.options, longest)
    monkeypatch.setattr("emtta_core.adaptation.batch_size.free_bytes", lambda device: room)
    narrow = Adapter(model, "em-tok-b", steps=1, candidates=3)
    assert [len(batch) for batch in narrow.batches(waveforms)] == [2, 1]
    assert narrow.batch_size == 2
    assert [result.hypothesis for result in narrow.transcribe(waveforms)] == [result.hypothesis for result in reference]
    monkeypatch.setattr("emtta_core.adaptation.batch_size.free_bytes", lambda device: 0.0)
    assert len(Adapter(model, "em-tok-b", steps=1, candidates=3).transcribe(waveforms)) == 3


def test_custom_method_is_validated(model: SpeechModel) -> None:
    odd = Method("odd", "sample", Objective(credit=cast("Any", "late")))
    with pytest.raises(UsageError, match=r"'late'.*to-go"):
        Adapter(model, odd)


def test_public_names_exist() -> None:
    names = ("Adapter", "__version__", "em_loss", "load_model", "mix_at_snr", "open_store", "read_audio")
    assert set(names) <= set(dir(emtta_core))
    assert all(getattr(emtta_core, name) for name in names)
    assert emtta_core.Adapter is Adapter
    assert emtta_core.load_model is load_model
    with pytest.raises(AttributeError, match="no attribute 'Adaptor'"):
        _ = emtta_core.Adaptor
