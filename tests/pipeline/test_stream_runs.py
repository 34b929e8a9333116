"""A stream processes its utterances in order, and one that was stopped ends with the rows of an uninterrupted one."""

import hashlib
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, Speech, SuiteFile, tone

from emtta_core.model import load_model
from emtta_core.pipeline import stream_job
from emtta_core.pipeline.events import Event
from emtta_core.pipeline.job import InterruptedRunError, Job
from emtta_core.pipeline.plan import plan
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.pipeline.run import Run, record
from emtta_core.pipeline.selection import work_units_of
from emtta_core.pipeline.stream_job import evaluate_stream
from emtta_core.pipeline.stream_state import ShiftDetector
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.store.integrity import check_store
from emtta_core.suite import load_suite

DOMAINS = "".join(
    f'[[domains]]\nname = "{name}"\ngroup = "{name}"\ncorpus = {{ name = "folder", path = "speech" }}\n'
    + (f'corruption = {{ name = "noise", kind = "gaussian", snr_db = {snr} }}\n' if snr is not None else "")
    for name, snr in (("clean", None), ("soft", 20), ("loud", 5), ("clean-again", None))
)

Rows = dict[tuple[str, str], Any]

loaded = cache(load_model)


@pytest.fixture(scope="module")
def known() -> dict[str, Rows]:
    """The rows of uninterrupted streams."""
    return {}


@pytest.fixture
def speech(tmp_path: Path) -> Speech:
    """A folder corpus with four good utterances."""
    corpus = Speech(tmp_path / "speech")
    for index in range(4):
        corpus.add(f"u{index}", tone(0.5 + 0.15 * index, 200 + 40 * index), "seven small boats")
    return corpus


class Streamed:
    """A suite with one stream, planned and prepared, and evaluated in this process."""

    def __init__(self, path: Path, store: str, stream: str) -> None:
        text = path.read_text().replace("[[domains]]", f"[stream]\n{stream}\n[[domains]]", 1)
        path.write_text(text)
        self.suite, self.store = load_suite(str(path)), Store.open(store, create=True)
        self.model = loaded(self.suite.model.name, precision=self.suite.model.precision)
        self.run = Run("run", self.suite, plan(self.suite, self.model.digest))
        for domain in self.suite.domains:
            cell = next(cell for cell in self.run.cells if cell.domain == domain.name)
            prepare_domain(domain, cell.corpus_id, self.store, None)
        record(self.run, self.store)
        self.events: list[Event] = []

    def evaluate(self, stop_after: int | None = None, **options: Any) -> Rows:
        """Evaluate the method's streams, each stopped after `stop_after` batches, and return all rows that count."""
        for first, *further in work_units_of(self.suite, self.run.cells):
            if first.method == "source":
                continue
            asked = 0

            def stop() -> bool:
                nonlocal asked
                asked += 1
                return stop_after is not None and asked >= stop_after

            job = Job.of(self.run, first, self.store.location, further=further, **options)
            evaluate_stream(job, self.store, self.model, progress=self.events.append, stop=stop)
        return self.rows()

    def rows(self) -> Rows:
        query = """
            SELECT domain, utterance_id, position, hypothesis, source_hypothesis, entropy_before, entropy_after, flags
            FROM utterances WHERE method <> 'source' ORDER BY position
        """
        with Catalogue(self.store) as catalogue:
            return {(domain, name): tuple(rest) for domain, name, *rest in catalogue.query(query).rows}


Make = Callable[..., Streamed]
Whole = Callable[[str], Rows]


@pytest.fixture
def make(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> Make:
    def made(
        stream: str, store: str = "store", domains: str = DOMAINS, sizes: int = 4, method: str = "em-tok-b"
    ) -> Streamed:
        path = suite_file(domains, ("source", method))
        text = path.read_text().replace("batch_size = 2", f"batch_size = {sizes}")
        path.write_text(text.replace('" }\nadaptation', '", precision = "float64" }\nadaptation'))
        return Streamed(path, store if "://" in store else str(tmp_path / store), stream)

    return made


@pytest.fixture
def whole(make: Make, known: dict[str, Rows]) -> Whole:
    def rows(stream: str) -> Rows:
        if stream not in known:
            known[stream] = make(stream, "whole").evaluate()
        return known[stream]

    return rows


def test_state_continues_across_domains(make: Make) -> None:
    streamed = make('reset = "never"')
    rows = streamed.evaluate()
    assert [row[0] for row in rows.values()] == list(range(16))
    assert list(dict.fromkeys(domain for domain, _ in rows)) == ["clean", "soft", "loud", "clean-again"]
    first, again = rows["clean", "u0"], rows["clean-again", "u0"]
    assert first[3] != again[3], "the second time, the model has adapted"
    assert all(row[5] == [] for row in rows.values())
    states = [row.state for cell in streamed.run.cells for row in streamed.store.cells(cell.key("run"))]
    assert states == ["complete"] * 4
    assert not streamed.store.backend.list("states"), "nothing is kept of a stream that is complete"


@pytest.mark.parametrize(
    "stream", [pytest.param('reset = "domain"', marks=pytest.mark.slow), 'reset = "every-2"\norder = "shuffled"']
)
def test_batched_segments_equal_single_ones(make: Make, stream: str) -> None:
    rows = make(stream).evaluate()
    alone = make(stream, "one", sizes=1).evaluate()
    for key, row in alone.items():
        assert rows[key][:3] == row[:3]
        assert rows[key][3:5] == pytest.approx(row[3:5], rel=1e-9)
    resets = {key for key, row in rows.items() if row[5] == ["reset"]}
    assert {rows[key][0] for key in resets} == ({2} if "every" in stream else set())
    assert rows["clean", "u0"] == rows["clean-again", "u0"]


@pytest.mark.slow
def test_each_order_is_followed(make: Make) -> None:
    shuffled = make('order = "shuffled"\nseed = 3', method="greedy-em").evaluate()
    assert list(dict.fromkeys(domain for domain, _ in shuffled)) == ["clean", "soft", "loud", "clean-again"]
    names = [name for domain, name in shuffled if domain == "soft"]
    assert names == sorted(names, key=lambda name: hashlib.sha256(f"3\0{1}\0{name}".encode()).digest())
    assert names != sorted(names)
    mixed = make('order = "mixed"', "mixed", method="greedy-em").evaluate()
    assert len({domain for domain, _ in list(mixed)[:5]}) > 1
    noisier = DOMAINS.replace("snr_db = 20", "snr_db = 0")
    gradual = make('order = "gradual"', "gradual", noisier, method="greedy-em").evaluate()
    assert list(dict.fromkeys(domain for domain, _ in gradual)) == ["clean", "clean-again", "loud", "soft"]


@pytest.mark.parametrize(
    ("stream", "stop_after"),
    [
        ('reset = "never"', 6),
        pytest.param('reset = "every-2"', 1, marks=pytest.mark.slow),
        pytest.param('reset = "every-3"\norder = "mixed"', 2, marks=pytest.mark.slow),
    ],
)
def test_stopped_stream_has_same_rows(make: Make, whole: Whole, stream: str, stop_after: int) -> None:
    stopped = make(stream)
    with pytest.raises(InterruptedRunError):
        stopped.evaluate(stop_after=stop_after)
    assert 0 < len(stopped.rows()) < len(whole(stream))
    assert stopped.evaluate() == whole(stream)
    with Catalogue(stopped.store) as catalogue:
        ((twice,),) = catalogue.query(
            "SELECT count(*) - count(DISTINCT (domain, utterance_id)) FROM raw.hypotheses"
        ).rows
    assert twice == 0, "what is done is done once"


@pytest.mark.slow
def test_stream_resumes_in_bucket(make: Make, whole: Whole, bucket: str) -> None:
    streamed = make('reset = "never"', f"s3://{bucket}/store")
    with pytest.raises(InterruptedRunError):
        streamed.evaluate(stop_after=6)
    assert len(streamed.store.backend.list("states")) == 1
    assert streamed.evaluate() == whole('reset = "never"')
    assert not streamed.store.backend.list("states")


def test_rows_after_last_state_stay_same(make: Make, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed after writing rows and before writing the state."""
    killed = make('reset = "never"')
    monkeypatch.setattr(stream_job, "SHARD_UTTERANCES", 2)
    written = 0

    def write_state(*arguments: Any) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise KeyboardInterrupt
        real(*arguments)

    real = stream_job.write_state
    monkeypatch.setattr(stream_job, "write_state", write_state)
    with pytest.raises(KeyboardInterrupt):
        killed.evaluate()
    assert killed.evaluate() == whole('reset = "never"')


@pytest.mark.parametrize(
    "damage", ["torn", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("gone", "rows"))]
)
def test_stream_without_state_restarts(make: Make, whole: Whole, damage: str) -> None:
    streamed = make('reset = "never"')
    with pytest.raises(InterruptedRunError):
        streamed.evaluate(stop_after=6)
    (state,) = (Path(streamed.store.location) / "states").rglob("*.state")
    if damage == "torn":
        state.write_bytes(state.read_bytes()[:-1])
        (fault,) = check_store(streamed.store).faults
        assert fault.file == str(state)
        assert "run its stream from the start: emtta rerun run" in fault.remedy
    elif damage == "gone":
        state.unlink()
    else:
        next((Path(streamed.store.location) / "scores").rglob("*.parquet")).unlink()
    assert streamed.evaluate() == whole('reset = "never"')


def test_bad_utterance_does_not_affect_stream(make: Make, whole: Whole, speech: Speech) -> None:
    usual = whole('reset = "never"')
    speech.add("u22-bad", b"RIFF this is no sound", "lost")
    rows = make('reset = "never"').evaluate()
    assert rows["clean", "u22-bad"][1] is None
    for key, row in usual.items():
        assert rows[key][1:5] == row[1:5]


def test_detector_finds_only_shifts() -> None:
    """A shift is two means of 5 in a row that exceed the usual by more than chance; then the detector starts over."""
    usual = [0.0, 0.1] * 10
    detector = ShiftDetector(20)
    assert not any(detector.detects_shift(index) for index in usual * 4)
    assert [detector.detects_shift(0.3) for _ in range(12)].index(True) == 9
    assert not any(detector.detects_shift(0.3 + index) for index in usual)
    assert not any(detector.detects_shift(index) for index in [0.3, 0.4, 0.3, 0.4, math.nan, 0.3] * 4)
    once = ShiftDetector(20)
    groups = [*usual, *[0.3] * 5, *[0.05] * 5, *[0.3] * 5, *[0.05] * 5]
    assert not any(once.detects_shift(index) for index in groups), "one group alone is no shift"


def test_shift_resets_stream(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a threshold that every mean exceeds, the stream resets after 10 utterances of learning and 2 groups of 2."""
    monkeypatch.setattr("emtta_core.pipeline.stream_state.BEYOND", -1e9)
    monkeypatch.setattr("emtta_core.pipeline.stream_state.GROUP", 2)
    rows = make('reset = "dynamic-10"', method="greedy-em").evaluate()
    assert [row[0] for row in rows.values() if "reset" in row[5]] == [14]


@pytest.mark.usefixtures("prefect_server")
def test_command_runs_whole_streams(emtta: Command, suite_file: SuiteFile, tmp_path: Path) -> None:
    store, speech = tmp_path / "store", Speech(tmp_path / "speech")
    for name in ("a", "b"):
        speech.add(name, tone(0.5), "seven small boats")
    path = suite_file(DOMAINS.partition('[[domains]]\nname = "clean-again"')[0])
    path.write_text(path.read_text().replace("[[domains]]", "[stream]\n[[domains]]", 1))
    ran = emtta("run", path, "--run-id", "a", "--store", store, "--only", "domain=soft")
    assert ran.code == 0, ran.err
    assert "a stream runs as a whole, so these cells run too: clean/em-tok-b, loud/em-tok-b" in ran.err
    assert "soft/source" in ran.err
    assert "clean/source" not in ran.err
    assert "loud/em-tok-b: WER" in ran.err
    other = path.read_text().replace("[stream]", '[stream]\norder = "mixed"')
    path.write_text(other)
    refused = emtta("run", path, "--run-id", "a", "--store", store)
    assert refused.code == 2
    assert "stream.order: 'corpus' there, 'mixed' here" in refused.err
    assert "choose another --run-id" in refused.err
    path.write_text(other.replace('\norder = "mixed"', ""))
    reused = emtta("run", path, "--run-id", "b", "--store", store)
    assert reused.code == 0, reused.err
    assert not Store.open(store).cells(CellKey("b", "loud", "em-tok-b")), "a whole stream is taken over"
    with Catalogue(Store.open(store)) as catalogue:
        made = catalogue.query("SELECT count(*), count(position) FROM utterances WHERE run_id = 'b'").rows
    assert made == [(12, 6)]
