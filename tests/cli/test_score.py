"""`emtta score` scores stored hypotheses again, with any number of scorers, and decodes nothing again."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import soundfile
from conftest import Command, Stage, SuiteFile, tone
from store_factory import REFERENCE, begin_run, end_attempt, one_run, with_errors, write_shard

from emtta_core.pipeline import rescoring
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.scoring.wer import Transcription, score
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.store.compaction import compact
from emtta_core.store.lease import lease

PLUGIN = """
def normalize(text):
    return text.lower().replace("colour", "color")

def spoken(text, language):
    return f"{language} {text}"

def broken(text):
    return text.upper() if "wrong" not in text else 1 / 0

def silent(text):
    return None
"""


@pytest.fixture
def tmp_path(stage: Stage) -> Path:
    return stage.clear()


@pytest.fixture
def store(tmp_path: Path, stage: Stage) -> Store:
    """A store with the run `run`: source and em-tok-b on two domains, with the hypothesis of every step."""
    stage.restore(lambda: make_store(tmp_path / "store"))
    return Store.open(tmp_path / "store")


def make_store(location: Path) -> None:
    opened = Store.open(location, create=True)
    cells = [("noise", domain, method) for domain in ("babble", "rain") for method in ("source", "em-tok-b")]
    begin_run(opened, "run", cells)
    for group, domain, method in cells:
        key = CellKey("run", domain, method)
        states = [with_errors(2)] if method == "source" else [with_errors(2), "Wrong, green! Blue river"]
        write_shard(opened, key, {"a": states, "b": [with_errors(1)] * len(states)}, attempt=opened.begin_attempt(key))
        end_attempt(opened, key, group=group)
    update_statistics(opened, "run")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `own_rules` with normalizers, importable by the command and its processes."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "own_rules.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    yield folder


def figures(store: Store, scorer: str | None = None) -> list[tuple[object, ...]]:
    with Catalogue(store, scorer=scorer) as catalogue:
        return catalogue.query("SELECT domain, method, errors, words, scorer, reason_hidden FROM cells").rows


def utterances(store: Store, columns: str, scorer: str | None = None) -> list[tuple[object, ...]]:
    order = "ORDER BY domain, method, utterance_id"
    with Catalogue(store, scorer=scorer) as catalogue:
        return catalogue.query(f"SELECT {columns} FROM utterances {order}").rows


def test_scorers_coexist(emtta: Command, store: Store) -> None:
    before = utterances(store, "*")
    outcome = emtta("score", "run", "--scorer", "none", "--store", store.location)
    assert outcome.code == 0, outcome.err
    assert "none: 8 utterances scored, 0 already scored in the same way" in outcome.err
    assert utterances(store, "*") == before, "the suite's scorer is still the one that is shown"
    # "Wrong, green! Blue river": three words are wrong without normalization, one with it
    assert [(row[1], row[2], row[4]) for row in figures(store, "none")] == [
        *(("source", 3, "none"), ("em-tok-b", 4, "none")) * 2,
    ]
    assert [row[2] for row in figures(store)] == [3, 2, 3, 2]
    board = emtta("report", "leaderboard", "--scorer", "none", "--format", "json", "--store", store.location)
    found = {(row["method"], row["group"]): row for row in json.loads(board.out)}
    assert found["em-tok-b", "all"]["wer"] == 50.0
    assert found["em-tok-b", "all"]["change"] == 12.5, "its statistics exist"


def test_rescoring_keeps_rows(emtta: Command, store: Store) -> None:
    before = utterances(store, "*")
    again = emtta("score", "run", "--store", store.location)
    assert "whisper: 0 utterances scored, 8 already scored in the same way" in again.err
    Path(store.location, "rescores").mkdir(exist_ok=True)
    both = ("--scorer", "basic", "--scorer", "whisper")
    assert emtta("score", "run", *both, "--store", store.location).code == 0
    assert utterances(store, "*") == before


def test_each_step_is_scored(emtta: Command, store: Store) -> None:
    assert emtta("score", "run", "--scorer", "none", "--store", store.location).code == 0
    steps = """
        SELECT step, substitutions, deletions, insertions, errors FROM steps
        WHERE utterance_id = 'a' AND domain = 'rain' AND method = 'em-tok-b' ORDER BY step
    """
    with Catalogue(store, scorer="none") as catalogue:
        assert catalogue.query(steps).rows == [(0, 2, 0, 0, 2), (1, 3, 0, 0, 3)]
    with Catalogue(store) as catalogue:
        assert catalogue.query(steps).rows == [(0, 2, 0, 0, 2), (1, 1, 0, 0, 1)]


def test_compacted_run_is_scored(emtta: Command, store: Store) -> None:
    compact(store, "run")
    assert emtta("score", "run", "--scorer", "none", "--store", store.location).code == 0
    assert [row[2] for row in figures(store, "none")] == [3, 4, 3, 4]
    assert emtta("compact", "run", "--store", store.location).code == 0
    assert [row[2] for row in figures(store, "none")] == [3, 4, 3, 4]


def test_missing_scorer_suggests_command(emtta: Command, store: Store) -> None:
    refused = emtta("report", "leaderboard", "--scorer", "jiwer", "--store", store.location)
    assert refused.code == 2
    assert "the run 'run' is not scored by 'jiwer', only by whisper." in refused.err
    command = f"emtta score run --scorer jiwer --store {store.location}"
    assert command in refused.err
    assert emtta(*command.split()[1:]).code == 0
    assert emtta("report", "leaderboard", "--scorer", "jiwer", "--store", store.location).code == 0


def test_mixed_releases_are_rescored(emtta: Command, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = CellKey("run", "rain", "source")
    monkeypatch.setattr("store_factory.score", lambda *given: score(*given) | {"normalizer": "whisper-english/9"})
    write_shard(store, key, {"a": [with_errors(2)], "b": [with_errors(1)]}, attempt=store.begin_attempt(key))
    assert all("the run was scored by the releases" in str(row[-1]) for row in figures(store))
    outcome = emtta("score", "run", "--store", store.location)
    assert "whisper: 2 utterances scored, 6 already scored in the same way" in outcome.err
    assert [row[-1] for row in figures(store)] == [None] * 4


def test_corrected_references_are_used(emtta: Command, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "corrected.csv"
    file.write_text(f"\ufeffid,text\r\na,{with_errors(2)}\r\n", "utf-8")
    refused = emtta("score", "run", "--references", file, "--store", store.location)
    assert refused.code == 2
    assert "lacks 2 of 4 utterances of the run 'run': babble/b, rain/b; add them, or let them keep" in refused.err
    outcome = emtta("score", "run", "--references", file, "--partial", "--store", store.location)
    assert outcome.code == 0, outcome.err
    assert [row[2] for row in figures(store)] == [1, 2, 1, 2]
    assert set(utterances(store, "utterance_id, reference")) == {("a", with_errors(2)), ("b", REFERENCE)}
    # another scorer uses the correction too, and the same file changes nothing more
    assert emtta("score", "run", "--scorer", "basic", "--store", store.location).code == 0
    assert [row[2] for row in figures(store, "basic")] == [1, 2, 1, 2]
    again = emtta("score", "run", "--references", file, "--partial", "--store", store.location)
    assert "whisper: 0 utterances scored, 8 already" in again.err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.csv", "id,text\nz,some words\n", "line 2: the run 'run' has no utterance 'z'"),
        ("r.csv", "id,text\na,\n", "line 2: the text of utterance 'a' is empty"),
        ("r.csv", "id,words\na,b\n", "have the columns id, words; give id and text"),
        ("r.csv", "id,text\na,one\na,two\n", "line 3: utterance 'a' has two different texts"),
        ("r.csv", "id,text,domain\na,one,snow\n", "no utterance 'a' in domain 'snow'"),
        ("r.jsonl", '{"id": "a", "text": "one"}\n{"id": 1}\n', "line 2: {'id': 1} must have id and text"),
        ("r.jsonl", "{\n", "line 1: not valid JSON"),
        ("r.txt", "a one\n", "the ending '.txt'; give a .csv, .tsv or .jsonl"),
        ("r.csv", b"id,text\na,\xff\n", "not text in UTF-8"),
    ],
)
def test_bad_references_are_refused(
    emtta: Command, store: Store, tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = emtta("score", "run", "--references", file, "--partial", "--store", store.location)
    assert outcome.code == 2
    assert words in outcome.err
    assert not list(store.backend.list("rescores"))


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        ("whispr", "there is no normalizer 'whispr'; choose from: whisper, basic, marks, jiwer, none"),
        ("whisper+numbrs", "has the option 'numbrs'; use a normalizer, optionally followed by +numbers or +compounds"),
        ("nowhere:normalize", "there is no module 'nowhere' for 'nowhere:normalize'"),
        ("own_rules:PLUGIN", "has no attribute 'PLUGIN'; name an existing object of the module"),
        ("own_rules:__name__", "is 'own_rules'; it must be a function of the text"),
    ],
)
def test_unknown_scorer_is_refused(emtta: Command, store: Store, plugin: Path, scorer: str, words: str) -> None:
    outcome = emtta("score", "run", "--scorer", scorer, "--store", store.location)
    assert outcome.code == 2
    assert words in outcome.err


def test_plugin_scores(emtta: Command, store: Store, plugin: Path) -> None:
    both = ("--scorer", "own_rules:normalize", "--scorer", "own_rules:spoken")
    assert emtta("score", "run", *both, "--store", store.location).code == 0
    assert {row[4] for row in figures(store, "own_rules:normalize")} == {"own_rules:normalize"}
    rows = utterances(store, "normalizer, reference_normalized", "own_rules:spoken")
    assert {text for _, text in rows} == {f"en {REFERENCE}"}
    assert all(str(name).startswith("own_rules:spoken/unversioned+source-") for name, _ in rows)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_rules:broken", "raised ZeroDivisionError: division by zero, on the text 'wrong"),
        ("own_rules:silent", "returned None for the text 'red green blue river'; it must return a text"),
    ],
)
def test_failing_plugin_stores_nothing(emtta: Command, store: Store, plugin: Path, name: str, words: str) -> None:
    outcome = emtta("score", "run", "--scorer", name, "--store", store.location)
    assert outcome.code == 1
    assert f"the normalizer {name} {words}" in outcome.err
    assert "utterance a" in outcome.err
    assert not list(store.backend.list("rescores"))


def test_killed_scoring_resumes(emtta: Command, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emtta_core.pipeline.rescoring.SHARD", 2)
    calls, kept = iter(range(10)), rescoring.score_all

    def stopped(utterances: Sequence[Transcription], by: str) -> object:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return kept(utterances, by)

    monkeypatch.setattr("emtta_core.pipeline.rescoring.score_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        rescoring.rescore(store, "run", ["none"])
    assert all(row[-1] for row in figures(store, "none")[2:])
    monkeypatch.setattr("emtta_core.pipeline.rescoring.score_all", kept)
    outcome = emtta("score", "run", "--scorer", "none", "--store", store.location)
    assert "none: 4 utterances scored, 4 already scored in the same way" in outcome.err
    assert [row[2] for row in figures(store, "none")] == [3, 4, 3, 4]


@pytest.mark.slow
def test_killed_command_leaves_no_process(store: Store) -> None:
    key = CellKey("run", "rain", "source")
    many = {f"u{number:04d}": [f"{REFERENCE} {number}"] for number in range(3_000)}
    write_shard(store, key, many, attempt=store.begin_attempt(key))
    words = ["score", "run", "--scorer", "basic", "--workers", "2", "--store", store.location]
    with subprocess.Popen([sys.executable, "-m", "emtta_core", *words]) as command:
        of_command = Path(f"/proc/{command.pid}/task/{command.pid}/children")
        pool: list[Path] = []
        while len(pool) < 2 and command.poll() is None:
            children = [Path("/proc", name) for name in of_command.read_text().split()]
            pool = [child for child in children if b"spawn_main" in (child / "cmdline").read_bytes()]
        command.kill()
    assert len(pool) == 2
    for _ in range(100):
        if not any(child.exists() for child in pool):
            return
        time.sleep(0.1)
    raise AssertionError(f"{pool} are still there")


def test_busy_run_is_not_scored(emtta: Command, store: Store) -> None:
    with lease(store, "run"):
        outcome = emtta("score", "run", "--scorer", "none", "--store", store.location)
    assert outcome.code == 1
    assert "is being worked on by process" in outcome.err


def test_pruned_run_leaves_no_scores(emtta: Command, store: Store) -> None:
    assert emtta("score", "run", "--scorer", "none", "--store", store.location).code == 0
    one_run(store, "the-newest")
    assert emtta("prune", "--keep", "1", "--yes", "--store", store.location).code == 0
    assert not list(store.backend.list("rescores"))


def test_partial_requires_references(emtta: Command, store: Store) -> None:
    outcome = emtta("score", "run", "--partial", "--store", store.location)
    assert outcome.code == 2
    assert "--partial belongs to --references FILE" in outcome.err


SILENCE = """
[[domains]]
name = "room"
group = "silence"
corpus = { name = "folder", path = "rooms", language = "en", silence = true }
"""


@pytest.mark.usefixtures("prefect_server")
def test_run_on_silence_counts_insertions(emtta: Command, suite_file: SuiteFile, tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    for name in ("a", "b"):
        soundfile.write(rooms / f"{name}.wav", 0.1 * tone(0.5), 16_000)
    suite = suite_file(SILENCE, methods=("source",))
    suite.write_text('scorers = ["whisper", "none"]\n' + suite.read_text())
    location = tmp_path / "store"
    outcome = emtta("run", suite, "--run-id", "quiet", "--store", location)
    assert outcome.code == 0, outcome.err
    for scorer in ("whisper", "none"):
        board = emtta("report", "leaderboard", "--scorer", scorer, "--format", "json", "--store", location)
        (row,) = (row for row in json.loads(board.out) if row["group"] == "all")
        with Catalogue(Store.open(location), scorer=scorer) as catalogue:
            ((words,),) = catalogue.query(
                "SELECT sum(len(string_split(hypothesis_normalized, ' '))) FROM utterances"
            ).rows
        assert row["wer"] is None
        assert row["insertions_per_minute"] == pytest.approx(60 * words)


@pytest.mark.usefixtures("prefect_server", "speech")
def test_changed_scorers_rescore_run(emtta: Command, suite_file: SuiteFile, tmp_path: Path) -> None:
    suite, location = suite_file(methods=("source",)), tmp_path / "store"
    assert emtta("run", suite, "--run-id", "mine", "--store", location).code == 0
    suite.write_text('scorers = ["none", "whisper"]\n' + suite.read_text())
    again = emtta("run", suite, "--run-id", "mine", "--store", location)
    assert again.code == 0, again.err
    assert "nothing to do" in again.err
    opened = Store.open(location)
    assert {row[4] for row in figures(opened)} == {"none"}
    assert not any(row[-1] for row in figures(opened) + figures(opened, "whisper"))
    with Catalogue(opened, runs=["mine"]) as catalogue:
        assert catalogue.query("SELECT DISTINCT scorer FROM raw.statistics ORDER BY ALL").rows == [
            ("none",),
            ("whisper",),
        ]


@pytest.mark.usefixtures("speech")
def test_missing_scorer_stops_before_run(emtta: Command, suite_file: SuiteFile, tmp_path: Path) -> None:
    suite = suite_file(methods=("source",))
    suite.write_text('scorers = ["gone_package:normalize"]\n' + suite.read_text())
    location = tmp_path / "store"
    refused = emtta("run", suite, "--store", location)
    assert (refused.code, "there is no module 'gone_package'" in refused.err) == (2, True)
    assert not Store.open(location).runs()
    found = json.loads(emtta("doctor", suite, "--store", location, "--format", "json").out)
    (check,) = (check for check in found["checks"] if check["what"] == "scorer gone_package:normalize")
    assert not check["ok"]
