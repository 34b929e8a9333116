"""Audio longer than the model's window is refused, or cut at silence, adapted to window by window, and joined."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import RATE, Command, Speech, SuiteFile, tone
from long_audio import LONG, SILENCE, outcomes, prepared, result

from emtta_core.adaptation import AdaptationResult, Adapter, StepRecord
from emtta_core.audio.waveform import windows_of
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.model import SpeechModel, load_model
from emtta_core.pipeline.long_audio import Window, WindowResult, join
from emtta_core.store import Store
from emtta_core.store.catalogue import Catalogue


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SpeechModel:
    return load_model(tiny_model, device="cpu")


def transcribed(pieces: Sequence[np.ndarray], ids: Sequence[str], model: SpeechModel) -> list[AdaptationResult]:
    adapter = Adapter(model, method="em-tok", steps=1, candidates=2, batch_size=2)
    return adapter.transcribe(pieces, utterance_ids=ids)


def test_short_utterance_ignores_mode(model: SpeechModel) -> None:
    rows = prepared(short=tone(1.0), whole=tone(4.0, 400))
    refused, cut = outcomes(model, rows, "refuse"), outcomes(model, rows, "cut")
    assert {name: result(outcome) for name, outcome in cut.items()} == {
        name: result(outcome) for name, outcome in refused.items()
    }
    assert all(outcome.windows == () for outcome in cut.values())


def test_refused_utterance_affects_no_other(model: SpeechModel) -> None:
    found = outcomes(model, prepared(long=LONG, short=tone(1.0)), "refuse")
    assert "6.60 s long" in str(result(found["long"]).error)
    assert result(found["short"]).error is None


def test_windows_are_joined(model: SpeechModel) -> None:
    found = outcomes(model, prepared(long=LONG, short=tone(1.0)), "cut")
    joined, windows = result(found["long"]), found["long"].windows
    # FLAC stores 16 bits, so the result is compared with that of the decoded audio.
    decoded = np.concatenate([window.window.waveform for window in windows])
    slices = windows_of(decoded, 4 * RATE)
    assert [window.window.begin for window in windows] == [part.start for part in slices]
    assert 2.6 < slices[0].stop / RATE < 3.6
    alone = transcribed([decoded[part] for part in slices], ["long\0001", "long\0002"], model)
    assert joined.hypothesis == " ".join(part.hypothesis for part in alone)
    assert joined.source_hypothesis == " ".join(part.source_hypothesis for part in alone)
    assert joined.tokens == sum(part.tokens or 0 for part in alone)
    weights = [part.source_tokens or 0 for part in alone]
    assert joined.entropy_before == pytest.approx(np.average([part.entropy_before for part in alone], weights=weights))
    assert [record.hypothesis for record in joined.trace] == [
        " ".join(filter(None, (part.trace[step].hypothesis for part in alone))) for step in range(2)
    ]
    assert joined.error is None


def test_windows_match_single_sentences() -> None:
    demo, spoken = load_model("demo", device="cpu"), [one.read() for one in Synthetic(utterances=4).read_all()]
    pause = np.zeros(round(0.3 * RATE), np.float32)
    rows = prepared(**{f"pair{first}": np.concatenate([spoken[first], pause, spoken[first + 1]]) for first in (0, 2)})
    found = outcomes(demo, rows, "cut", method="source")
    alone = [each.hypothesis for each in Adapter(demo, "source").transcribe(spoken)]
    assert [result(found[name]).hypothesis for name in ("pair0", "pair2")] == [" ".join(alone[:2]), " ".join(alone[2:])]
    assert all(len(outcome.windows) == 2 for outcome in found.values())


def test_trace_level_keeps_joined_result(model: SpeechModel) -> None:
    found = [
        result(outcomes(model, prepared(long=LONG), "cut", trace=trace)["long"]) for trace in ("hypotheses", "none")
    ]
    plain = [dataclasses.replace(each, trace=()) for each in found]
    assert plain[0] == plain[1]
    assert found[1].trace == ()


def test_identical_windows_have_distinct_ids(model: SpeechModel) -> None:
    twice = np.concatenate([tone(2.5, 300), SILENCE, tone(2.5, 300), SILENCE])
    parts = [window.result for window in outcomes(model, prepared(long=twice), "cut")["long"].windows]
    assert len(parts) == 2
    assert parts[0] is not None and parts[1] is not None
    assert parts[0].utterance_id != parts[1].utterance_id


def test_silent_window_is_skipped(model: SpeechModel) -> None:
    pause = np.concatenate([tone(1.5, 300), np.zeros(9 * RATE, np.float32), tone(1.0, 500)])
    found = outcomes(model, prepared(long=pause, nothing=np.zeros(9 * RATE, np.float32)), "cut")
    kinds = [window.result is None for window in found["long"].windows]
    assert kinds[0] is False and kinds[-1] is False
    assert any(kinds[1:-1])
    assert result(found["long"]).error is None
    assert "silent" in str(result(found["nothing"]).error)


def test_diverged_window_is_named(model: SpeechModel) -> None:
    found = outcomes(model, prepared(long=LONG), "cut", learning_rate=1e30, steps=2)
    joined = result(found["long"])
    assert "window 1 of 2: the adaptation diverged" in str(joined.error)
    assert joined.hypothesis == ""
    assert math.isnan(joined.entropy_after)


def part(text: str, entropy: float, tokens: int, steps: int, **more: object) -> AdaptationResult:
    trace = [
        StepRecord(
            step, f"{text}{step}", entropy, tokens, *((1.0 * tokens, 0.0, 0.0, 0.0, 0.0, 2.0, 4.0) * (step < steps))
        )
        for step in range(steps + 1)
    ]
    made = AdaptationResult("w", text, text, entropy, entropy, tuple(trace), 1.0, steps, tokens, tokens, tokens)
    return dataclasses.replace(made, **more)


def joined(*parts: AdaptationResult) -> AdaptationResult:
    window = Window("w", 1, 0, tone(0.1))
    return join("u", [WindowResult(window, "en", None, part) for part in parts])


def test_entropy_is_weighted_by_tokens() -> None:
    made = joined(part("a", 1.0, 10, steps=1), part("b", 4.0, 5, steps=3))
    assert made.entropy_after == pytest.approx(2.0)
    assert (made.tokens, made.updates, made.seconds) == (15, 3, 2.0)
    assert [record.hypothesis for record in made.trace] == ["a0 b0", "a1 b1", "a1 b2", "a1 b3"]
    assert [record.loss for record in made.trace] == [7.5, 5.0, 5.0, None]
    assert [record.candidate_tokens for record in made.trace] == [8.0, 4.0, 4.0, None]


def test_one_empty_window_is_not_collapse() -> None:
    empty = part("", 0.1, 1, steps=1, flags=("collapsed",))
    assert joined(part("a", 1.0, 3, steps=1), empty).flags == ()
    assert joined(empty, empty).flags == ("collapsed",)
    assert joined(part("a a", 0.0, 3, steps=1, flags=("truncated", "collapsed")), empty).flags == (
        "truncated",
        "collapsed",
    )


@pytest.mark.parametrize("compacted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_run_keeps_row_per_window(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str, compacted: bool
) -> None:
    speech.add("long", LONG, "the quick brown fox")
    path = suite_file(methods=("em-tok-b",))
    path.write_text(path.read_text().replace("model = {", 'model = { long_audio = "cut",'))
    store = tmp_path / "store"
    assert emtta("run", path, "--store", store).code == 0
    if compacted:
        (run_id,) = Store.open(store).runs()
        assert emtta("compact", run_id, "--store", store).code == 0
    with Catalogue(Store.open(store)) as catalogue:
        rows = catalogue.query("SELECT error, hypothesis FROM utterances WHERE utterance_id = 'long'").rows
        windows = catalogue.query('SELECT "window", begins, seconds, language, hypothesis FROM windows ORDER BY 1').rows
    ((error, text),) = rows
    assert error is None
    assert text == " ".join(row[4] for row in windows if row[4])
    assert [row[0] for row in windows] == [1, 2]
    assert windows[0][1] + windows[0][2] == windows[1][1]
    assert sum(row[2] for row in windows) == pytest.approx(len(LONG) / RATE)
