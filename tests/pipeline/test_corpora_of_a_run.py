"""A run records its corpora, continues without a missing one, and includes one that appears later."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Command, Stage, SuiteFile
from corpora_factory import (
    librispeech_folder,
    librispeech_hub,
    librispeech_rows,
    mls_folder,
    mls_hub,
    put,
    sound,
    tedlium_hub,
)
from hub_server import Hub

from emtta_core.audio.noise_file import NoiseFile
from emtta_core.corpora.librispeech import LibriSpeech, MultilingualLibriSpeech
from emtta_core.errors import UsageError
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.pipeline.run import (
    check_unchanged,
    find_started,
    is_recorded,
    load_run,
    plan_run,
    record,
    replace_plan,
    replan,
)
from emtta_core.store import Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.lease import lease
from emtta_core.suite import load_suite, parse_suite

SUITE = """
name = "t"
methods = ["source"]
model = {{ name = "demo" }}
domains = [{{ name = "x", group = "g", corpus = {} }}]
"""
MODEL = "0123456789abcdef"

LIBRISPEECH = '[[domains]]\nname = "{}"\ngroup = "clean"\ncorpus = {{ name = "librispeech", {} }}\n'


@pytest.fixture
def tmp_path(stage: Stage) -> Path:
    return stage.clear()


def test_run_continues_without_corpus(
    tmp_path: Path,
    hub: Hub,
    suite_file: SuiteFile,
    emtta: Command,
    prefect_server: str,
) -> None:
    commit = librispeech_hub(hub)
    librispeech_folder(tmp_path, count=3)
    domains = [
        LIBRISPEECH.format("hub", "max_seconds = 0.55"),
        LIBRISPEECH.format("folder", 'path = "LibriSpeech"'),
        LIBRISPEECH.format("gone", 'path = "elsewhere"'),
    ]
    suite, store = suite_file("".join(domains), methods=("source",)), tmp_path / "store"
    ended = emtta("run", suite, "--store", store, "--run-id", "r")
    assert ended.code == 3
    assert "domain gone cannot be prepared: LibriSpeech test-other is not in" in ended.err
    assert "domain hub: without 3 utterances longer than max_seconds" in ended.err
    query = "select domain, state, done from cells order by domain"
    assert emtta("sql", query, "--store", store, "--format", "csv").out.split() == [
        "domain,state,done",
        "folder,complete,3",
        "gone,failed,0",
        "hub,complete,3",
    ]
    recorded = emtta("sql", "select suite_toml from runs", "--store", store, "--format", "csv").out
    assert commit in recorded
    hub.status = 503
    again = emtta("rerun", "r", "--store", store)
    assert (again.code, "gone: not prepared: LibriSpeech test-other is not in" in again.err) == (3, True)
    complete = emtta("run", suite, "--store", store, "--run-id", "r", "--only", "domain=hub", "--only", "domain=folder")
    assert (complete.code, "nothing to do" in complete.err) == (0, True)


def test_each_missing_corpus_has_reason(
    tmp_path: Path,
    hub: Hub,
    suite_file: SuiteFile,
    emtta: Command,
    prefect_server: str,
) -> None:
    librispeech_hub(hub)
    mls_hub(hub)
    tedlium_hub(hub)
    librispeech_folder(tmp_path, count=3)
    hub.sets["facebook/multilingual_librispeech"].gated = True
    hub.sets["hf-audio/esb-datasets-test-only-sorted"].declared["tedlium/test-00000-of-00001.parquet"] = 10**18
    (tmp_path / "empty" / "LibriSpeech" / "test-other").mkdir(parents=True)
    corpora = {
        "good": 'name = "librispeech", path = "LibriSpeech"',
        "gated": 'name = "mls", language = "german"',
        "empty": 'name = "librispeech", path = "empty/LibriSpeech"',
        "short": 'name = "librispeech", path = "LibriSpeech", max_seconds = 0.01',
        "large": 'name = "tedlium", max_seconds = 20',
    }
    reasons = {
        "gated": "facebook/multilingual_librispeech is gated",
        "empty": "so the split is empty",
        "short": "3 are longer than max_seconds",
        "large": "free space, or set HF_HUB_CACHE to a folder on another disk",
    }
    domains = "".join(
        f'[[domains]]\nname = "{name}"\ngroup = "g"\ncorpus = {{ {corpus} }}\n' for name, corpus in corpora.items()
    )
    store = tmp_path / "store"
    ended = emtta("run", suite_file(domains, methods=("source",)), "--store", store, "--run-id", "r")
    assert ended.code == 3
    with Catalogue(Store.open(str(store))) as catalogue:
        found = {row["domain"]: row for row in catalogue.query("SELECT domain, state, error FROM cells").records}
    assert found["good"]["state"] == "complete"
    for name, reason in reasons.items():
        assert (found[name]["state"], reason in str(found[name]["error"])) == ("failed", True), found[name]


def test_corpus_sources_are_recorded(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = librispeech_hub(hub)
    mls_folder(tmp_path)
    put(tmp_path, {"MS-SNSD/noise_test/Babble_4.wav": sound(1.0, form="WAV")})
    monkeypatch.setenv("EMTTA_CORPORA", str(tmp_path))
    text = SUITE.format('{ name = "librispeech" }').replace(
        "domains = [",
        'domains = [{ name = "y", group = "g", corpus = { name = "mls", language = "german" }, '
        'corruption = { name = "noise-file", kind = "babble", snr_db = 10 } }, ',
    )
    store = Store.open(str(tmp_path / "store"), create=True)
    run = plan_run(parse_suite(text), MODEL, "r")
    record(run, store)
    monkeypatch.delenv("EMTTA_CORPORA")
    librispeech_hub(hub, librispeech_rows(2))
    recorded = load_run(store, "r")
    german, english = recorded.suite.domains
    assert isinstance(german.corpus, MultilingualLibriSpeech)
    assert isinstance(german.corruption, NoiseFile)
    assert isinstance(english.corpus, LibriSpeech)
    assert german.corpus.path == str(tmp_path / "mls_german" / "test")
    assert german.corruption.path == str(tmp_path / "MS-SNSD" / "noise_test")
    assert english.corpus.revision == commit
    made = [
        prepare_domain(domain, cell.corpus_id, store) for domain, cell in zip((german, english), run.cells, strict=True)
    ]
    assert [each.corpus.utterances for each in made] == [3, 6]


@pytest.mark.slow
@pytest.mark.parametrize("again", ["run", "rerun"])
def test_resumed_run_includes_late_corpus(
    tmp_path: Path, suite_file: SuiteFile, emtta: Command, prefect_server: str, stage: Stage, again: str
) -> None:
    later, store = tmp_path / "later", tmp_path / "store"
    domains = [LIBRISPEECH.format("here", 'path = "LibriSpeech"'), LIBRISPEECH.format("late", f'path = "{later}"')]
    suite = suite_file("".join(domains), methods=("source",))

    def begin() -> None:
        librispeech_folder(tmp_path, count=2)
        begun = emtta("run", suite, "--store", store)
        assert begun.code == 3
        (run_id,) = Store.open(str(store)).runs()
        assert f"finish them with: emtta rerun {run_id} --store {store}" in begun.err

    stage.restore(begin)
    (run_id,) = Store.open(str(store)).runs()
    librispeech_folder(later, count=3)
    words = ("rerun", run_id) if again == "rerun" else ("run", suite)
    dry = emtta(*words, "--store", store, "--dry-run")
    assert (dry.code, f"run {run_id}: would do " in dry.err) == (0, True), dry.err
    gone_on = emtta(*words, "--store", store)
    assert gone_on.code == 0, gone_on.err
    assert f"run {run_id}: 1 cell to do, 3 utterances" in gone_on.err
    planned_again = "domain late is planned again with its current audio and transcripts"
    assert (planned_again in gone_on.err) == (again == "rerun")
    query = "select domain, state, planned, done, attempts from cells order by domain"
    assert emtta("sql", query, "--store", store, "--format", "csv").out.split()[1:] == [
        "here,complete,2,2,1",
        "late,complete,3,3,1",
    ]
    complete = emtta("run", suite, "--store", store)
    assert (complete.code, f"run {run_id}: nothing to do" in complete.err) == (0, True), complete.err


def test_same_command_includes_late_corpus(tmp_path: Path, suite_file: SuiteFile, tiny_model: Path) -> None:
    librispeech_folder(tmp_path, count=2)
    later = tmp_path / "later"
    text = [LIBRISPEECH.format("here", 'path = "LibriSpeech"'), LIBRISPEECH.format("late", f'path = "{later}"')]
    suite, store = load_suite(str(suite_file("".join(text)))), Store.open(str(tmp_path / "store"), create=True)
    first = plan_run(suite, MODEL)
    record(first, store)
    librispeech_folder(later, count=3)
    second = plan_run(suite, MODEL)
    assert second.run_id != first.run_id
    found = find_started(second, store)
    assert found.run_id == first.run_id
    assert is_recorded(found, store)
    assert [cell.utterances for cell in load_run(store, first.run_id).cells] == [2, 2, 1, 1], "nothing is written yet"
    record(found, store)
    recorded = load_run(store, first.run_id)
    assert (recorded.cells, recorded.plan.plan_id) == (second.cells, second.plan.plan_id)
    assert [cell.utterances for cell in recorded.cells] == [2, 2, 3, 3]


def test_chosen_id_includes_late_corpus(tmp_path: Path, suite_file: SuiteFile, tiny_model: Path) -> None:
    librispeech_folder(tmp_path, count=2)
    text = [LIBRISPEECH.format("here", 'path = "LibriSpeech"'), LIBRISPEECH.format("late", 'path = "later"')]
    path, store = suite_file("".join(text)), Store.open(str(tmp_path / "store"), create=True)
    suite = load_suite(str(path))
    record(plan_run(suite, MODEL, "mine"), store)
    librispeech_folder(tmp_path / "later", count=3)
    record(plan_run(suite, MODEL, "mine"), store)
    assert [cell.utterances for cell in load_run(store, "mine").cells] == [2, 2, 3, 3]
    other = plan_run(suite, MODEL, "another")
    assert find_started(other, store) is other
    with pytest.raises(UsageError, match="the run 'mine' exists with a different plan"):
        record(plan_run(load_suite(str(path), limit=1), MODEL, "mine"), store)


def test_other_runs_ignore_late_corpus(tmp_path: Path, suite_file: SuiteFile, tiny_model: Path) -> None:
    librispeech_folder(tmp_path, count=2)
    text = [LIBRISPEECH.format("here", 'path = "LibriSpeech"'), LIBRISPEECH.format("late", 'path = "later"')]
    path, store = suite_file("".join(text)), Store.open(str(tmp_path / "store"), create=True)
    limited = plan_run(load_suite(str(path), limit=1), MODEL)
    record(limited, store)
    record(plan_run(load_suite(str(path)), "f" * 16), store)  # for another model
    before = {run_id: store.plan(run_id) for run_id in store.runs()}
    librispeech_folder(tmp_path / "later", count=3)
    whole = plan_run(load_suite(str(path)), MODEL)
    with lease(store, limited.run_id):  # another process is working on it
        assert find_started(whole, store) == whole
        record(whole, store)
    assert {run_id: store.plan(run_id) for run_id in before} == before


def test_plan_of_other_code_is_unchanged(
    tmp_path: Path, suite_file: SuiteFile, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, emtta: Command
) -> None:
    librispeech_folder(tmp_path, count=2)
    text = [LIBRISPEECH.format("here", 'path = "LibriSpeech"'), LIBRISPEECH.format("late", 'path = "later"')]
    suite, store = load_suite(str(suite_file("".join(text)))), Store.open(str(tmp_path / "store"), create=True)
    begun = plan_run(suite, MODEL)
    record(begun, store)
    before = store.plan(begun.run_id)
    librispeech_folder(tmp_path / "later", count=3)
    for module in ("plan", "run"):
        monkeypatch.setattr(f"emtta_core.pipeline.{module}.ALGORITHM_VERSION", -1)
    refused = emtta("rerun", begun.run_id, "--store", store.location)
    assert (refused.code, "was planned by different code" in refused.err) == (2, True), refused.err
    whole = plan_run(suite, MODEL)
    assert find_started(whole, store) == whole
    assert store.plan(begun.run_id) == before


@pytest.mark.parametrize("again", ["run", "rerun"])
def test_interrupted_replan_is_completed(
    tmp_path: Path, suite_file: SuiteFile, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    librispeech_folder(tmp_path, count=2)
    text = [LIBRISPEECH.format("here", 'path = "LibriSpeech"'), LIBRISPEECH.format("late", 'path = "later"')]
    suite, store = load_suite(str(suite_file("".join(text)))), Store.open(str(tmp_path / "store"), create=True)
    record(plan_run(suite, MODEL, "mine"), store)
    librispeech_folder(tmp_path / "later", count=3)
    whole = plan_run(suite, MODEL, "mine")
    writers = {name: getattr(Store, name) for name in ("write_run", "write_plan")}
    written: list[str] = []
    for name, writer in writers.items():

        def write(self: Store, *what: Any, name: str = name, writer: Any = writer) -> None:
            if written:
                raise KeyboardInterrupt  # between the two writes
            written.append(name)
            writer(self, *what)

        monkeypatch.setattr(Store, name, write)
    with pytest.raises(KeyboardInterrupt):
        record(whole, store)
    monkeypatch.undo()
    if again == "run":
        record(whole, store)
    else:
        cut = load_run(store, "mine")
        check_unchanged(store, cut)
        replace_plan(replan(cut, {"late"}), store)
    assert load_run(store, "mine").cells == whole.cells
    check_unchanged(store, load_run(store, "mine"))
