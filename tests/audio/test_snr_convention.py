"""`--snr-convention` equals the suite's field, in each command that reads a suite."""

import re
from pathlib import Path

import pytest
from conftest import CLEAN, Command, Speech, SuiteFile

from emtta_core.store import Store

NOISY = CLEAN + 'corruption = { name = "noise", kind = "gaussian", snr_db = 10 }\n'
OLD = NOISY.replace("snr_db = 10", 'snr_db = 10, snr_convention = "msnsd-old"')
GIVEN = ("--snr-convention", "msnsd-old")


@pytest.fixture
def suites(suite_file: SuiteFile, speech: Speech) -> tuple[Path, Path]:
    """A suite with exact ratios, and the same suite with the old convention."""
    return suite_file(NOISY), suite_file(OLD, name="old.toml")


def ratios(store: Path) -> set[float | None]:
    """Return the ratios of a store's prepared audio."""
    opened = Store.open(str(store))
    names = {entry.name.split("/")[1] for entry in opened.backend.list("prepared")}
    corpora = [corpus for name in sorted(names) if (corpus := opened.prepared(name)) is not None]
    return {row.snr_db for corpus in corpora for row in opened.read_prepared(corpus)}


def test_run_option_equals_field(suites: tuple[Path, Path], tmp_path: Path, emtta: Command) -> None:
    exact, old = suites
    dry = ("--store", tmp_path / "store", "--dry-run")
    planned = [emtta("run", *words, *dry) for words in ((exact,), (exact, *GIVEN), (old,))]
    assert {one.code for one in planned} == {0}, planned
    by_default, by_option, by_field = (re.search(r"run (\S+): would do", one.err) for one in planned)
    assert by_default and by_option and by_field
    assert by_option[1] == by_field[1] != by_default[1]


def test_prepare_and_doctor_options_equal_field(suites: tuple[Path, Path], tmp_path: Path, emtta: Command) -> None:
    exact, old = suites
    store = tmp_path / "store"
    assert emtta("prepare", exact, *GIVEN, "--store", store).code == 0
    assert ratios(store) == {5.0}
    prepared = {
        words: "1 of 1 prepared" in " ".join(emtta("doctor", *words, "--store", store).out.split())
        for words in ((exact,), (exact, *GIVEN), (old,))
    }
    assert prepared == {(exact,): False, (exact, *GIVEN): True, (old,): True}


def test_listen_option_equals_field(suites: tuple[Path, Path], tmp_path: Path, emtta: Command) -> None:
    exact, old = suites
    pages = []
    for name, words in {"exact": (exact,), "option": (exact, *GIVEN), "field": (old,)}.items():
        ended = emtta("listen", *words, "--examples", "1", "--out", tmp_path / name)
        assert ended.code == 0, ended.err
        pages.append((tmp_path / name / "emtta-listen-tiny.html").read_text(encoding="utf-8"))
    assert pages[1] == pages[2] != pages[0]
    assert "10 dB by name, 5 dB in truth" in pages[1]


def test_doctor_option_needs_suite(emtta: Command) -> None:
    refused = emtta("doctor", *GIVEN)
    assert refused.code == 2
    assert "--snr-convention applies to the ratios of a suite; name the suite" in refused.err
