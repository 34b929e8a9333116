"""`emtta sql` reads a query from an argument, a file or a pipe, writes rows in any format, and has a prompt."""

import csv
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console
from store_factory import begin_run, with_errors, write_shard

from emtta_core.store import Catalogue, CellKey, Result, Store
from flows.cli._output import tabulate
from flows.cli._prompt import Prompt, Words

SQL = "SELECT domain, wer FROM cells WHERE method = $method"


@pytest.fixture(scope="module")
def store_location(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = Store.open(tmp_path_factory.mktemp("place") / "store", create=True)
    begin_run(store, "run", [("noise", "babble", "source")])
    write_shard(store, CellKey("run", "babble", "source"), {"a": [with_errors(1)], "b": [with_errors(1)]})
    return store.location


@pytest.fixture
def catalogue(store_location: str) -> Iterator[Catalogue]:
    with Catalogue(Store.open(store_location)) as catalogue:
        yield catalogue


def test_query_from_argument_file_or_pipe(
    store_location: str, emtta: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "question.sql"
    file.write_text(f"-- a comment\n{SQL};\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(SQL))
    for given in ([SQL], ["-f", file], ["--file", file], [file], []):
        outcome = emtta("sql", *given, "--param", "method=source", "--format", "csv", "--store", store_location)
        assert (outcome.code, outcome.out) == (0, "domain,wer\nbabble,25.0\n"), outcome.err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["nothing.sql"], "the query cannot be read from the file nothing.sql: No such file"),
        (["SELECT 1", "-f", "x.sql"], "give either a query or the file x.sql, not both"),
        ([], "no query given: pass it as an argument"),
        (["SELECT 1", "--param", "x"], "--param 'x' is not a parameter; write NAME=VALUE"),
        (["SELECT 1", "--format", "csv", "--out", "no/such/folder/x.csv"], "cannot be written"),
        (["SELECT 1", "--format", "csv", "--out", "x.parquet"], "--format csv contradicts --out x.parquet"),
        (["SELECT 1", "--out", "x.html"], "--out x.html is the name of a page"),
    ],
)
def test_bad_query_is_refused(
    given: list[str], words: str, store_location: str, emtta: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    outcome = emtta("sql", *given, "--store", store_location)
    assert outcome.code == 2
    assert words in " ".join(outcome.err.split())


def test_stdout_and_file_agree(store_location: str, emtta: Command, tmp_path: Path) -> None:
    readers = {
        "csv": lambda text: [(row["domain"], float(row["wer"])) for row in csv.DictReader(io.StringIO(text))],
        "json": lambda text: [(row["domain"], row["wer"]) for row in json.loads(text)],
        "markdown": lambda text: [
            (cells[1].strip(), float(cells[2])) for cells in (line.split("|") for line in text.splitlines()[2:])
        ],
        "table": lambda text: [
            (cells[1].strip(), float(cells[2])) for cells in (line.split("│") for line in text.splitlines()[3:-1])
        ],
    }
    for form, read in readers.items():
        out = tmp_path / f"rows.{form}"
        shown = emtta("sql", SQL, "--param", "method=source", "--format", form, "--store", store_location)
        kept = emtta("sql", SQL, "--param", "method=source", "--format", form, "--store", store_location, "--out", out)
        assert read(shown.out) == read(out.read_text()) == [("babble", 25.0)]
        assert (kept.code, kept.out) == (0, "")


@pytest.mark.parametrize("form", ["csv", "json", "md", "parquet"])
def test_extension_selects_format(form: str, store_location: str, emtta: Command, tmp_path: Path) -> None:
    by_suffix, by_option = tmp_path / f"rows.{form.upper()}", tmp_path / "rows"
    query = "FROM cells ORDER BY ALL"
    assert emtta("sql", query, "--out", by_suffix, "--store", store_location).code == 0
    form = "markdown" if form == "md" else form
    assert emtta("sql", query, "--format", form, "--out", by_option, "--store", store_location).code == 0
    assert by_suffix.read_bytes() == by_option.read_bytes()


def test_piped_or_saved_table_is_complete(store_location: str, emtta: Command, tmp_path: Path) -> None:
    long = "a " * 200 + "z" * 200
    query = f"SELECT *, '{long}' AS longest FROM utterances ORDER BY ALL LIMIT 1"
    out = tmp_path / "rows.txt"
    assert emtta("sql", query, "--out", out, "--store", store_location).code == 0
    shown = emtta("sql", query, "--store", store_location).out
    assert shown == out.read_text()
    assert long in shown
    assert "…" not in shown
    assert len(shown.splitlines()) == 5


def test_terminal_names_omitted_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Result(pa.table({"words": ["ab " * 20], "digest": ["d" * 50], "wer": [12345.678], "left": ["x" * 50]}))
    screen = io.StringIO()
    tabulate(table.to_table(), Console(file=screen, width=44))
    rows = [line.split("│") for line in screen.getvalue().splitlines()[2:]]
    assert ["".join(cells).replace(" ", "") for cells in zip(*rows, strict=True)] == ["ab" * 20, "d" * 50, "12345.68"]
    assert capsys.readouterr().err.startswith("columns hidden: left; ")


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "json"])
def test_terminal_escapes_values(
    form: str, store_location: str, emtta: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = "a\x9b31mb\u202ec"
    asked = ["sql", f"SELECT '{acting}' AS \"{acting}\"", "--format", form, "--store", store_location]
    piped = emtta(*asked).out
    assert (acting in piped) == (form != "table")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    seen = emtta(*asked).out
    assert seen.count(r"a\x9b31mb\u202ec") == 2
    assert not {"\x9b", "\u202e"} & set(seen)
    assert r"Table with name a\x9b31mb\u202ec" in emtta("sql", f'FROM "{acting}"', "--store", store_location).err


def test_parquet_never_goes_to_terminal(store_location: str, emtta: Command, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    query = "SELECT domain, wer, (SELECT max(created_at) FROM runs) AS at FROM cells"
    assert emtta("sql", query, "--format", "parquet", "--out", out, "--store", store_location).code == 0
    (row,) = pq.read_table(out).to_pylist()
    assert (row["domain"], row["wer"], row["at"].isoformat()) == ("babble", 25.0, "2026-11-23T00:00:00+00:00")
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", "sql", query, "--store", store_location]
    piped = subprocess.run([*command, "--format", "parquet"], capture_output=True, timeout=60)
    assert pq.read_table(io.BytesIO(piped.stdout)).to_pylist() == [row]
    main, terminal = pty.openpty()
    refused = subprocess.run([*command, "--format", "parquet"], stdout=terminal, stderr=subprocess.PIPE, timeout=60)
    os.close(main)
    assert refused.returncode == 2
    assert b"name a file with --out FILE" in refused.stderr


def typed(catalogue: Catalogue, *lines: str) -> None:
    """Type lines at the prompt, each followed by Enter."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("".join(f"{line}\r" for line in lines))
        Prompt(catalogue).run()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "emtta" / "sql-history"


def test_prompt_is_multiline_with_history(
    catalogue: Catalogue, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(catalogue, ".format csv", "SELECT domain,", "wer FROM cells;", ".quit")
    assert "domain,wer\nbabble,25.0\n" in capsys.readouterr().out
    assert "+SELECT domain,\n+wer FROM cells;" in state.read_text()


def test_prompt_survives_mistake(catalogue: Catalogue, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["SELEKT 1;", ".fly", ".schema nothing", ".schema", ".format parquet", ".report x", "DROP VIEW cells;"]
    typed(catalogue, *lines, "", ";", ".format csv", "SELECT 41 + 1 AS answer;", ".quit")
    captured = capsys.readouterr()
    for words in (
        "SELEKT",
        "unknown command '.fly'; choose from: .format, .help, .quit, .report, .reports, .schema, .views",
        "unknown view or table 'nothing'",
        "expected one name, but got 0; write .schema NAME",
        "a prompt cannot show the format 'parquet'",
        "unknown report 'x'",
        "only one SELECT at a time",
    ):
        assert words in " ".join(captured.err.split())
    assert captured.out.endswith("answer\n42\n")


def test_prompt_lists_what_can_be_queried(
    catalogue: Catalogue, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [".format csv", ".views", ".schema cells", ".schema raw.scores", ".reports", ".help"]
    typed(catalogue, *lines, ".report domains run_id=run group=noise;", ".quit")
    captured = capsys.readouterr()
    rows = list(csv.reader(io.StringIO(captured.out)))
    assert ["wer", "DOUBLE"] in [row[:2] for row in rows]
    assert ["hits", "BIGINT", "correct words"] in rows
    assert ["group", "VARCHAR", "as in planned"] in rows
    assert any(row[0] == "cells" and row[2] == "one row per planned cell (run, domain, method, seed)" for row in rows)
    assert any(row[0] == "errors" and row[2] == "method, group, domain, kind, limit" for row in rows)
    assert any(row[:2] == ["babble", "source"] for row in rows)
    assert ".report NAME [NAME=VALUE …]" in captured.err


@pytest.mark.parametrize(
    ("text", "expected", "never"),
    [
        ("SELECT * FROM ce", "cells", "cer"),
        ("SELECT * FROM raw.sc", "raw.scores", "score"),
        ("SELECT utterance_i", "utterance_id", "utterances"),
        ("SELECT gro", '"group"', "group"),
        ("sel", "SELECT", "steps"),
        ("SELECT quantile_c", "quantile_cont", "cells"),
        (".rep", ".report", "regexp_matches"),
        (".report lead", "leaderboard", "lead"),
        (".schema utt", "utterances", "utterance_id"),
        (".format js", "json", "json_each"),
    ],
)
def test_completion_fits_context(text: str, expected: str, never: str, catalogue: Catalogue) -> None:
    words = Words(catalogue, [".help", ".report", ".schema", ".format"])
    found = [one.text for one in words.get_completions(Document(text), CompleteEvent())]
    assert expected in found
    assert never not in found
    assert len(found) == len(set(found))


def test_prompt_works_on_real_terminal(store_location: str, tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", "sql", "--store", store_location]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""

    def until(words: bytes, signals: int | None = None) -> None:
        """Read output until `words` appear; resend the signal while waiting, since one may arrive too early."""
        nonlocal shown
        end = time.monotonic() + 60
        while words not in shown:
            assert time.monotonic() < end, shown
            if select.select([main], [], [], 0.5)[0]:
                shown += os.read(main, 4096)
            elif signals is not None:
                process.send_signal(signals)
        shown = shown.partition(words)[2]

    until(b"emtta>")
    os.write(main, b"SELECT wer + 17 AS x FROM cells;\r")
    until(b"42.00")
    until(b"emtta>")
    os.write(main, b"SELECT half,\x03")  # Ctrl-C
    until(b"emtta>")
    until(b"emtta>")
    os.write(main, b"SELECT sum(a.range * b.range) FROM range(10000000) AS a, range(10000000) AS b;\r")
    until(b"\x1b[?2004l")  # the query has been submitted
    until(b"stopped", signal.SIGINT)
    until(b"emtta>")
    os.write(main, b"\x04")  # Ctrl-D
    assert process.wait(timeout=30) == 0
    os.close(main)
