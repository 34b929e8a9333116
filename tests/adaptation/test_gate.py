"""An utterance keeps the source's hypothesis if its entropy is low (gate) or adaptation made it worse (revert)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import METHODS, AdaptationResult, Adapter
from emtta_core.adaptation.flags import collapsed
from emtta_core.model import SpeechModel, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Greedy, Hypotheses, Strategy, generate

IDS = ("a", "b", "c", "d", "e")
OPTIONS: dict[str, Any] = {"steps": 2, "candidates": 3, "learning_rate": 1e-2, "beams": 4}
ADAPTING = [
    *("greedy-em", "em-tok-b"),  # a single hypothesis, and beams
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("em-tok", "em-tok-b+beam", "em-tok-b+mbr")),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(make_checkpoint(tmp_path_factory.mktemp("checkpoint")), device="cpu", precision="float64")


@pytest.fixture(scope="module")
def waveforms() -> list[NDArray[np.float32]]:
    return sounds([0.4, 1.0, 2.9, 1.7, 0.7])


@pytest.fixture(scope="module")
def entropies(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> list[float]:
    return [result.entropy_before for result in Adapter(model, "source").transcribe(waveforms)]


def transcribed(
    model: SpeechModel, name: str, waveforms: Sequence[NDArray[np.float32]], **options: Any
) -> list[AdaptationResult]:
    """Return results without times, and with numbers rounded so that summation order does not matter."""
    made = Adapter(model, name, **OPTIONS | options).transcribe(waveforms, utterance_ids=IDS[: len(waveforms)])
    return [rounded(result) for result in made]


def rounded(result: AdaptationResult) -> AdaptationResult:
    def short(value: Any) -> Any:
        return round(value, 8) if isinstance(value, float) else value

    trace = tuple(replace(record, **{name: short(getattr(record, name)) for name in UPDATE}) for record in result.trace)
    before, after = short(result.entropy_before), short(result.entropy_after)
    return replace(result, seconds=0.0, trace=trace, entropy_before=before, entropy_after=after)


UPDATE = ("entropy", "loss", "policy_loss", "entropy_loss", "candidate_entropy", "advantage_std", "gradient_norm")


Known = Callable[[str], list[AdaptationResult]]


@pytest.fixture(scope="module")
def by_source(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> Known:
    """The source model's hypotheses, chosen by a method's decision rule."""

    @cache
    def decided(name: str) -> list[AdaptationResult]:
        unadapted = replace(METHODS[name], candidates="none")
        return Adapter(model, unadapted, **OPTIONS).transcribe(waveforms, utterance_ids=IDS)

    return decided


@pytest.fixture(scope="module")
def everyone(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> Known:
    """A method's results for all utterances, without a gate."""
    return cache(lambda name: transcribed(model, name, waveforms))


@pytest.mark.parametrize("name", ADAPTING)
def test_low_entropy_is_not_adapted(
    model: SpeechModel,
    waveforms: list[NDArray[np.float32]],
    entropies: list[float],
    by_source: Known,
    everyone: Known,
    name: str,
) -> None:
    threshold = sorted(entropies)[2]
    results = transcribed(model, name, waveforms, adapt_above=threshold)
    assert [result.updates for result in results] == [0 if value <= threshold else 2 for value in entropies]
    for gated, adapted, kept in zip(results, everyone(name), by_source(name), strict=True):
        if gated.updates:
            assert gated == adapted
            continue
        assert gated.flags == (*kept.flags, "gated")
        assert (gated.hypothesis, gated.tokens) == (kept.hypothesis, kept.tokens)
        assert gated.source_hypothesis == adapted.source_hypothesis
        assert gated.entropy_after == gated.entropy_before == adapted.entropy_before
        (only,) = gated.trace
        assert (only.step, only.hypothesis, only.loss) == (0, adapted.source_hypothesis, None)


@pytest.mark.parametrize("name", ADAPTING)
def test_gate_can_close_or_open_for_all(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], by_source: Known, everyone: Known, name: str
) -> None:
    shut = transcribed(model, name, waveforms, adapt_above=100.0)
    kept = by_source(name)
    assert [result.hypothesis for result in shut] == [result.hypothesis for result in kept]
    assert all("gated" in result.flags and len(result.trace) == 1 for result in shut)
    assert transcribed(model, name, waveforms, adapt_above=0.0) == everyone(name)


@pytest.mark.parametrize("name", ADAPTING)
def test_batch_equals_its_parts(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], entropies: list[float], name: str
) -> None:
    options = {"steps": 4, "adapt_above": sorted(entropies)[1], "early_stop": 1.0, "revert": True}
    together = transcribed(model, name, waveforms, batch_size=5, learning_rate=0.1, **options)
    assert transcribed(model, name, waveforms, batch_size=1, learning_rate=0.1, **options) == together
    assert transcribed(model, name, waveforms, batch_size=2, learning_rate=0.1, **options) == together
    updates = {result.updates for result in together}
    assert min(updates) == 0 < max(updates)
    assert len(updates) > 2 or name == "em-tok", "some are gated, and the others stop at different steps"


@pytest.mark.parametrize("name", ADAPTING)
def test_worse_hypothesis_is_reverted(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], by_source: Known, name: str
) -> None:
    plain = transcribed(model, name, waveforms, learning_rate=0.3)
    results = transcribed(model, name, waveforms, learning_rate=0.3, revert=True)
    kept = by_source(name)
    worse = [result.entropy_after > result.entropy_before or collapsed(result.hypothesis) for result in plain]
    assert any(worse)
    for result, adapted, source, lost in zip(results, plain, kept, worse, strict=True):
        if not lost:
            assert result == adapted
            continue
        assert (result.hypothesis, result.tokens) == (source.hypothesis, source.tokens)
        assert result.flags == (*source.flags, "reverted")
        assert (result.trace, result.updates) == (adapted.trace, adapted.updates)
        assert result.entropy_after == adapted.entropy_after


def test_better_hypothesis_is_kept(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    plain = transcribed(model, "greedy-em", waveforms, learning_rate=1e-3)
    assert all(result.entropy_after < result.entropy_before for result in plain)
    assert transcribed(model, "greedy-em", waveforms, learning_rate=1e-3, revert=True) == plain


def test_gated_utterance_is_decoded_once(
    model: SpeechModel, waveforms: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[type[Strategy]]] = []

    def counted(*given: Any) -> list[Hypotheses]:
        made.append([type(strategy) for strategy in given[-1]])
        return generate(*given)

    monkeypatch.setattr("emtta_core.adaptation.episode.generate", counted)
    transcribed(model, "em-tok-b", waveforms, adapt_above=100.0)
    assert made == [[Greedy]]
    made.clear()
    transcribed(model, "em-tok-b", waveforms, adapt_above=0.0, trace="metrics")
    assert made == [[Greedy], [BeamSearch], [BeamSearch], [Greedy]]  # greedy for the source only once
