"""`emtta export` writes a run in the formats of other tools; they count the same errors as the store."""

import csv
import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import jiwer
import jsonschema
import pyarrow.parquet as pq
import pytest
from conftest import Command, Outcome
from huggingface_hub import DatasetCard
from store_factory import begin_run, cell_id_of, end_attempt, one_run, with_errors, write_shard

from emtta_core.pipeline.rescoring import finalize_figures
from emtta_core.report.transcripts import plain_ids, timed
from emtta_core.store import Catalogue, CellKey, Store, WindowRow
from emtta_core.store.pruning import Keep, plan_pruning, prune

SCHEMA = Path(__file__).parents[2] / "docs" / "results.schema.json"
METHODS = (("source",), ("em-tok", 0), ("em-tok", 1))
HYPOTHESES = ("source", "em-tok.seed-0", "em-tok.seed-1")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the run `run`: source and two seeds of em-tok; of seven utterances, one is in error, one silent."""
    opened = Store.open(tmp_path_factory.mktemp("export") / "store", create=True)
    cells = [("noise", domain, *method) for domain in ("babble", "rain") for method in METHODS]
    begin_run(opened, "run", cells, utterances=7, scorer="none")
    for index, (group, domain, method, *seed) in enumerate(cells):
        key = CellKey("run", domain, method, *seed)
        attempt = opened.begin_attempt(key)
        texts = {f"Talk/{number} (x)": [with_errors((number + index) % 4)] for number in range(4)}
        texts |= {"marks": ["(red) green @ blue {river} "], "lost": None}
        write_shard(opened, key, texts, attempt=attempt, speaker="Sp_1-(x)", scorer="none")
        silent = {"reference": "", "speaker": "Sp_1-(x)", "scorer": "none"}
        write_shard(opened, key, {"silence": ["red"]}, attempt=attempt, shard=1, **silent)
        end_attempt(opened, key, group=group)
    finalize_figures(opened, "run")
    return opened


@pytest.fixture
def own(store: Store, tmp_path: Path) -> Store:
    """A copy of the store that a test may change."""
    shutil.copytree(store.location, tmp_path / "own")
    return Store.open(tmp_path / "own")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "some" / "out"


def export(emtta: Command, store: Store, form: str, out: Path, *more: str, code: int = 0) -> Outcome:
    found = emtta("export", "run", "--format", form, "--out", str(out), "--store", store.location, *more)
    assert found.code == code, found.err
    return found


def cut(store: Store) -> None:
    """Give the first utterance of each cell two windows: 0 to 4 s, and 10 to 12 s."""
    for row in store.plan("run"):
        windows = [(0.0, 4.0, "wrong wrong"), (10.0, 2.0, "blue river")]
        same = dict.fromkeys(("language_probability", "source_hypothesis", "entropy_before", "entropy_after"))
        same |= {"cell_id": cell_id_of(row.domain, row.method, row.seed), "attempt": 1, "tokens": 5, "updates": 1}
        rows = [
            WindowRow(
                utterance_id="Talk/2 (x)", language="en", window=n, begins=begin, seconds=long, hypothesis=text, **same
            )
            for n, (begin, long, text) in enumerate(windows, 1)
        ]
        store.write_windows(CellKey("run", row.domain, row.method, row.seed), 1, 0, rows)


def counts(store: Store) -> dict[tuple[str, str], tuple[int, int]]:
    sql = "SELECT domain, concat_ws('.seed-', method, seed), words::INT, errors::INT FROM cells"
    with Catalogue(store) as catalogue:
        return {(domain, name): (words, errors) for domain, name, words, errors in catalogue.query(sql).rows}


def read_trn(file: Path) -> dict[str, str]:
    found = [re.fullmatch(r"([^(){}@<;]*) \(([^\s()]+)\)", line) for line in file.read_text().splitlines()]
    assert all(found), "a text has a sign that sclite takes for markup"
    return {match[2]: match[1] for match in found if match}


def recount(references: dict[str, str], hypotheses: dict[str, str]) -> tuple[int, int]:
    scored = jiwer.process_words([references[key] for key in hypotheses], list(hypotheses.values()))
    errors = scored.substitutions + scored.deletions + scored.insertions
    return scored.hits + scored.substitutions + scored.deletions, errors


def test_trn_keeps_counts(emtta: Command, store: Store, out: Path) -> None:
    messages = export(emtta, store, "trn", out).err
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{domain}.{name}.trn" for domain in ("babble", "rain") for name in ("ref", *(f"{h}.hyp" for h in HYPOTHESES))
    )
    found = {
        (domain, name): recount(read_trn(out / f"{domain}.ref.trn"), read_trn(out / f"{domain}.{name}.hyp.trn"))
        for domain in ("babble", "rain")
        for name in HYPOTHESES
    }
    assert found == counts(store)
    ids = read_trn(out / "rain.ref.trn")
    assert list(ids)[:2] == ["sp.1..x.-talk.0..x.", "sp.1..x.-talk.1..x."], "a speaker, a hyphen, an utterance"
    assert "left out, counted for each method: 6 utterances in error" in messages
    assert "left out, counted for each method: 6 utterances without speech" in messages
    assert "texts with a character that sclite takes for markup, one of ( ) { } @ < ;: 6;" in messages


def test_ids_are_unique_for_sclite() -> None:
    assert plain_ids({"a b": "S", "A/b": "s", "c": "x_1-2"}) == {"a b": "s-a.b", "A/b": "s-a.b.2", "c": "x.1.2-c"}


def test_ctm_times_lie_in_windows(emtta: Command, own: Store, out: Path) -> None:
    refused = export(emtta, own, "ctm", out, code=2).err
    assert "no selected utterance of the run 'run' was cut into windows, so words have no times" in refused
    assert not out.exists()
    cut(own)
    export(emtta, own, "ctm", out, "--domain", "babble")
    lines = (out / "babble.source.ctm").read_text().splitlines()
    assert lines[0].startswith(";; Times are estimates: each word's place in its window's text")
    words = [line.split() for line in lines if not line.startswith(";;")]
    of_cut = [word[2:] for word in words if word[0] == "sp.1..x.-talk.2..x."]
    assert [word for *_, word in of_cut] == ["wrong", "wrong", "blue", "river"]
    times = [(float(begin), float(begin) + float(seconds)) for begin, seconds, _ in of_cut]
    assert all(before[1] <= after[0] + 0.001 for before, after in pairwise(times))
    assert [times[0][0], times[1][1], times[2][0], times[3][1]] == [0, 4, 10, 12]
    segments = [line.split(" ", 5) for line in (out / "babble.stm").read_text().splitlines()]
    assert [segment[0] for segment in segments] == sorted(segment[0] for segment in segments)
    heard_words: dict[str, list[str]] = {}
    for name, *_, word in words:
        heard_words.setdefault(name, []).append(word)
    texts = {name: " ".join(found) for name, found in heard_words.items()}
    assert recount({segment[0]: segment[5] for segment in segments}, texts) == counts(own)["babble", "source"]


def test_words_divide_window_evenly() -> None:
    assert [*timed("abcd", [(0.0, 4.0, 10), (6.0, 2.0, 0), (10.0, 2.0, 10)])] == [
        *((0.0, 2.0, "a"), (2.0, 2.0, "b"), (10.0, 1.0, "c"), (11.0, 1.0, "d"))
    ]
    assert [*timed("ab", [(1.0, 4.0, 0)])] == [(1.0, 2.0, "a"), (3.0, 2.0, "b")]
    assert [*timed("", [(1.0, 4.0, 3)])] == []


@pytest.mark.parametrize(
    ("form", "file", "keys"),
    [
        ("nemo", "rain.em-tok.seed-1.jsonl", ["audio_filepath", "duration", "text", "pred_text"]),
        (
            "open-asr",
            "MODEL_demo-em-tok.seed-1_DATASET_test_rain_test.jsonl",
            ["audio_filepath", "duration", "time", "text", "pred_text"],
        ),
    ],
)
def test_json_lines_have_raw_texts(
    form: str, file: str, keys: list[str], emtta: Command, store: Store, out: Path
) -> None:
    export(emtta, store, form, out, "--method", "em-tok")
    assert len(list(out.iterdir())) == 4, "two seeds on two domains"
    lines = [json.loads(line) for line in (out / file).read_text().splitlines()]
    assert list(lines[0]) == keys
    found = {line["audio_filepath"]: (line["duration"], line["pred_text"]) for line in lines}
    assert found["marks.flac"] == (2.0, "(red) green @ blue {river} ")
    assert len(found) == 5


def test_tables_have_every_utterance(emtta: Command, store: Store, out: Path) -> None:
    export(emtta, store, "csv", out)
    export(emtta, store, "parquet", out, "--domain", "rain", "--method", "source")
    with (out / "utterances.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 42
    table = pq.read_table(out / "utterances.parquet")
    assert table.column_names == list(rows[0]) and table.num_rows == 7


def test_latex_has_intervals(emtta: Command, store: Store, out: Path) -> None:
    export(emtta, store, "latex", out)
    lines = (out / "leaderboard.tex").read_text().splitlines()
    assert lines[1] == r"% \usepackage{booktabs}"
    assert lines[4] == r"method & group & WER, \% (95\% interval) & change, points & p \\"
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert all(re.fullmatch(r"[\w-]+ & \w+ & \d+\.\d\d \([\d.]+--[\d.]+\) & .* & .* \\\\", row) for row in body), body


def test_results_json_is_stored(emtta: Command, store: Store, out: Path) -> None:
    export(emtta, store, "results-json", out)
    text = (out / "results.json").read_text()
    stored = Path(store.location, "logs", "run.results.json")
    assert stored.read_text() == text
    found = json.loads(text)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(found)
    (board,) = (row for row in found["groups"] if (row["method"], row["group"]) == ("em-tok", "all"))
    shown = json.loads(emtta("report", "leaderboard", "--format", "json", "--store", store.location).out)
    (row,) = (row for row in shown if (row["method"], row["group"]) == ("em-tok", "all"))
    for name in ("wer", "wer_low", "wer_high", "change", "p", "substitution_rate", "wins", "seeds", "in_error"):
        assert board[name] == pytest.approx(row[name]), name
    assert [(pair["method"], pair["baseline"]) for pair in found["pairs"]] == [("em-tok", "source")] * 2
    assert found["scoring"] == {"scorer": "none", "normalizers": ["none"], "errors": "exclude"}
    written = stored.stat().st_mtime_ns
    finalize_figures(store, "run")
    assert stored.stat().st_mtime_ns == written, "what says the same is not written again"


def test_scoring_updates_results_json(emtta: Command, own: Store, tmp_path: Path) -> None:
    stored = Path(own.location, "logs", "run.results.json")
    before = json.loads(stored.read_text())
    (tmp_path / "new.csv").write_text("id,text\nmarks,(red) green @ blue {river}\n")
    done = emtta("score", "run", "--references", str(tmp_path / "new.csv"), "--partial", "--store", own.location)
    assert done.code == 0, done.err
    after = json.loads(stored.read_text())
    assert after["groups"][0]["wer"] < before["groups"][0]["wer"]


def test_pruning_deletes_results_json(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    for day, run_id in enumerate(("old", "new"), 1):
        one_run(store, run_id)
        store.write_run(run_id, replace(store.run(run_id), created_at=datetime(2026, 1, day, tzinfo=UTC)))
        finalize_figures(store, run_id)
    prune(store, plan_pruning(store, Keep(newest=1)))
    assert [entry.name for entry in store.backend.list("logs")] == ["logs/new.results.json"]


def test_hub_export_is_data_set(emtta: Command, store: Store, out: Path) -> None:
    assert "add --hub-id OWNER/NAME" in export(emtta, store, "hub", out, code=2).err
    assert "has no owner" in export(emtta, store, "hub", out, "--hub-id", "heard", code=2).err
    export(emtta, store, "hub", out, "--hub-id", "me/heard")
    card = DatasetCard.load(out / "README.md")
    assert card.data.language == ["en"]
    (files,) = card.data.to_dict()["configs"]
    assert pq.read_table(out / files["data_files"][0]["path"]).num_rows == 42
    assert "| em-tok | all |" in card.text and "| `reference_normalized` |" in card.text
    assert "license" not in card.data.to_dict() and "**Licence.**" in card.text
    entries = (out / ".eval_results" / "test.yaml").read_text()
    assert "- dataset:\n    id: me/heard\n    task_id: babble\n  value: " in entries


def test_export_uses_chosen_scorer(emtta: Command, own: Store, out: Path) -> None:
    refused = export(emtta, own, "trn", out, "--scorer", "jiwer", code=2).err
    assert "is not scored by 'jiwer'" in refused
    assert emtta("score", "run", "--scorer", "jiwer", "--store", own.location).code == 0
    export(emtta, own, "trn", out, "--scorer", "jiwer")
    assert read_trn(out / "rain.source.hyp.trn")["sp.1..x.-marks"] == "red green blue river"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "walk", "--format", "trn"), "unknown run 'walk'; choose from: run"),
        (("export", "run", "--format", "tm"), "unknown format 'tm' (did you mean 'ctm'?); choose from: csv, ctm"),
        (("export", "run", "--format", "trn", "--method", "em"), "unknown method of the run 'run', 'em'"),
        (("export", "run", "--format", "csv", "--domain", "snow"), "unknown domain of the run 'run', 'snow'"),
        (("export", "run", "--format", "latex", "--method", "source"), "--format latex holds figures of the whole run"),
        (("export", "run", "--format", "csv", "--hub-id", "a/b"), "--hub-id a/b is only for --format hub"),
    ],
)
def test_bad_request_lists_choices(
    words: tuple[str, ...], message: str, emtta: Command, store: Store, out: Path
) -> None:
    found = emtta(*words, "--out", str(out), "--store", store.location)
    assert found.code == 2
    assert message in found.err
    assert not out.exists()


def test_existing_files_are_kept(emtta: Command, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file; name a folder" in export(emtta, store, "csv", tmp_path / "file", code=2).err
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "rain.ref.trn").write_text("mine")
    refused = export(emtta, store, "trn", folder, code=2).err
    assert f"{folder / 'rain.ref.trn'} already exists; name another folder with --out, or add --force" in refused
    assert [path.name for path in folder.iterdir()] == ["rain.ref.trn"], "no other file is written"
    export(emtta, store, "trn", folder, "--force")
    assert len(read_trn(folder / "rain.ref.trn")) == 5


def test_empty_run_is_refused(emtta: Command, tmp_path: Path, out: Path) -> None:
    store = Store.open(tmp_path / "empty", create=True)
    begin_run(store, "run", [("noise", "babble", "source")])
    message = f"has no utterances yet; evaluate it with: emtta rerun run --store {store.location}"
    assert message in export(emtta, store, "trn", out, code=2).err
    key = CellKey("run", "babble", "source")
    write_shard(store, key, {"a": None}, attempt=store.begin_attempt(key))
    message = f"counts in a WER; see why: emtta report failures --run run --store {store.location}"
    assert message in export(emtta, store, "trn", out, code=2).err
    assert not list(tmp_path.rglob("*.tmp"))


def test_incomplete_run_warns(emtta: Command, tmp_path: Path, out: Path) -> None:
    store = Store.open(tmp_path / "part", create=True)
    begin_run(store, "run", [("noise", "babble", "source")], utterances=3)
    key = CellKey("run", "babble", "source")
    write_shard(store, key, {"a": [with_errors(1)]}, attempt=store.begin_attempt(key))
    assert (
        "the run is not complete: 1 of 3 utterances are done; finish it with: emtta rerun run"
        in export(emtta, store, "trn", out).err
    )
