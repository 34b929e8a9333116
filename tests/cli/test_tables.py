"""The important columns of a report fit a terminal of 80 columns, and a file's extension determines its format."""

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Command
from rich.console import Console
from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.compare import compare
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.store import Catalogue, CellKey, Result, Store
from flows.cli import _output

RUN = "nightly-of-the-support-calls-2026-11-23"
METHODS = ("source", "em-tok-b")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs with statistics; the domain `late` of the second is missing."""
    store = Store.open(tmp_path_factory.mktemp("tables") / "store", create=True)
    for run_id, domains in ((RUN, ("Received-Pronunciation", "babble")), ("partial", ("babble", "late"))):
        cells = [("conditions", domain, method) for domain in domains for method in METHODS]
        begin_run(store, run_id, cells, utterances=6, suite_toml='name = "calls"')
        for group, domain, method in cells:
            if domain == "late":
                continue
            errors = [2, 3, 1, 4, 2, 3] if method == "source" else [1, 3, 2, 3, 2, 2]
            write_shard(
                store, CellKey(run_id, domain, method), {f"u{i}": [with_errors(n)] for i, n in enumerate(errors)}
            )
            end_attempt(store, CellKey(run_id, domain, method), group=group)
        assert update_statistics(store, run_id)
    return store


def on_a_terminal(result: Result, title: str, width: int = 80) -> str:
    """Render a table as a terminal of this width shows it."""
    screen = io.StringIO()
    _output.tabulate(result.to_table(title), Console(file=screen, width=width, highlight=False))
    return screen.getvalue()


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("leaderboard", ("method", "group", "wer", "change", "p")),
        ("domains", ("domain", "method", "wer", "change", "p")),
        ("runs", ("run_id", "state", "created_at")),
    ],
)
def test_report_fits_80_columns(
    name: str, columns: tuple[str, ...], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with Catalogue(store) as catalogue:
        found = catalogue.report(name, None if name == "runs" else RUN)
    shown = on_a_terminal(found, "the title")
    assert max(map(len, shown.splitlines())) <= 80
    hidden = capsys.readouterr().err.partition("columns hidden: ")[2].partition(";")[0].split(", ")
    assert not set(columns) & set(hidden)
    if name == "runs":
        assert RUN in shown, "a run id is whole"
    if name == "leaderboard":
        assert "62.50 (" in shown, "a rate with its interval"
        assert " ± " in shown, "a change with its interval"


def test_verdict_fits_80_columns(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(store, RUN, RUN).as_result()
    shown = on_a_terminal(found, "the title")
    assert max(map(len, shown.splitlines())) <= 80
    assert "unchanged" in shown
    assert "verdict" not in capsys.readouterr().err


def test_programs_get_plain_numbers(emtta: Command, store: Store) -> None:
    for name in ("leaderboard", "domains"):
        asked = ("report", name, "--run", RUN, "--store", store.location)
        rows = json.loads(emtta(*asked, "--format", "json").out)
        assert {row["method"] for row in rows} == {"source", "em-tok-b"}
        for row in rows:
            for column in ("wer", "wer_low", "wer_high", "change", "ci_half_width", "p", "wins", "ties", "losses"):
                assert row[column] is None or isinstance(row[column], int | float)
                assert row["method"] == "source" or row[column] is not None
        (first, *_) = csv.DictReader(io.StringIO(emtta(*asked, "--format", "csv").out))
        assert float(first["wer_low"]) <= float(first["wer"]) <= float(first["wer_high"])


def test_report_header_names_run(emtta: Command, store: Store) -> None:
    asked = ("report", "leaderboard", "--run", RUN, "--store", store.location)
    assert emtta(*asked).out.splitlines()[0].startswith(f"leaderboard: run {RUN} (suite test, model demo, 2026-11-23")
    as_csv = emtta(*asked, "--format", "csv")
    assert as_csv.out.startswith("method,group,wer,")
    assert f"run {RUN} (suite test" in as_csv.err


@pytest.mark.parametrize("verb", [["report", "domains"], ["list"], ["compare", RUN, RUN]])
def test_columns_are_selected_in_order(verb: list[str], emtta: Command, store: Store) -> None:
    chosen = ["state", "run_id"] if verb == ["list"] else ["p", "method"]
    shown = emtta(*verb, "--columns", ",".join(chosen), "--store", store.location)
    head = next(line for line in shown.out.splitlines() if line.startswith("┃"))
    assert head.replace("┃", " ").split() == chosen
    unknown = emtta(*verb, "--columns", "colour", "--store", store.location)
    assert (unknown.code, "unknown column 'colour'" in unknown.err) == (2, True)
    assert emtta(*verb, "--columns", "p,,", "--store", store.location).code == 2


def test_extension_determines_content(emtta: Command, store: Store, tmp_path: Path) -> None:
    def written(name: str) -> Path:
        out = tmp_path / name
        assert emtta("report", "domains", "--run", RUN, "--store", store.location, "--out", out).code == 0
        return out

    tex = written("table.tex").read_text()
    assert tex.startswith("\\begin{tabular}{llrr")
    assert "Received-Pronunciation & source & 62.50 (" in tex
    assert "change\\_percent" in tex
    assert tex.count("\\\\") == 1 + 4
    assert json.loads(written("rows.json").read_text())[0]["domain"] == "Received-Pronunciation"
    assert pq.read_table(written("rows.parquet")).num_rows == 4
    assert written("rows.md").read_text().startswith("| domain | method |")
    assert "┃ domain" in written("rows.txt").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "leaderboard", "--out", "t.xlsx"], "unknown ending .xlsx; choose from: .csv, .json"),
        (["sql", "SELECT 1", "--out", "t.svg"], "unknown ending .svg"),
        (
            ["report", "html", "--out", "nowhere/page.html"],
            "there is no folder nowhere; create it, or name another file",
        ),
        (["report", "html", "--out", "fig.svg"], "--out fig.svg is not the name of a page"),
        (["report", "html", "--out", "page"], "--out page is not the name of a page"),
        (["report", "leaderboard", "--format", "csv", "--out", "t.tex"], "contradicts --out t.tex"),
        (["catalog", "export", "t.csv"], "t.csv is not the name of a DuckDB file"),
    ],
)
def test_conflicting_extension_is_refused(
    words: list[str], message: str, emtta: Command, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = emtta(*words, "--store", store.location)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["leaderboard", "methods"])
def test_partial_report_lists_missing(name: str, emtta: Command, store: Store) -> None:
    shown = emtta("report", name, "--run", "partial", "--store", store.location)
    table = shown.out.split("domains that are complete")[1]
    assert "babble" in table
    assert "62.50" in table
    assert "late" not in table
    assert "incomplete for source, em-tok-b: 1 of 2 domains: late" in shown.err
    assert "domains that are complete" not in emtta("report", name, "--run", RUN, "--store", store.location).out


def test_suite_describes_its_domains(emtta: Command) -> None:
    shown = emtta("suites", "demo").out
    for code, kind in (("GS", "gaussian"), ("AC", "air-conditioner"), ("VC", "vacuum-cleaner")):
        assert any(code in line and kind in line for line in shown.splitlines())
    unknown = emtta("suites", "dmeo")
    assert (unknown.code, "unknown suite 'dmeo' (did you mean 'demo'?)" in unknown.err) == (2, True), unknown.err
