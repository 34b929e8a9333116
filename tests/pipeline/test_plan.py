"""A plan's identities change with everything that can change a result, and with nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Speech, SuiteFile, tone
from corpora_factory import l2arctic_folder, librispeech_hub
from hub_server import Hub

from emtta_core.adaptation import method
from emtta_core.adaptation.options import Options
from emtta_core.corpora.folder import Folder
from emtta_core.corpora.l2arctic import SPEAKERS
from emtta_core.errors import CorpusError, UsageError
from emtta_core.pipeline.plan import Audio, Plan, cells_of, plan, recipe_id
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.pipeline.selection import resume_command, select
from emtta_core.store import Store
from emtta_core.suite import ModelChoice, Suite, load_suite, parse_suite

DIGEST = "0123456789abcdef"

SUITE = """\
name = "planned"
methods = ["source", "greedy-em", "em-seq", "em-tok", "em-tok-b"]
model = { name = "demo" }
adaptation = { steps = 3, candidates = 4 }
[defaults]
corpus = { name = "synthetic", utterances = 2 }
[[domains]]
name = "clean"
group = "clean"
[[domains]]
name = "BA"
group = "noise"
corruption = { name = "noise", kind = "babble", snr_db = 5 }
"""


def ids(planned: Plan) -> dict[tuple[str, str], str]:
    return {(cell.domain, cell.method): cell.cell_id for cell in planned.cells}


def changed(old: str, new: str) -> set[str]:
    """The methods with a cell whose identity changes when `old` in the suite becomes `new`."""
    assert old in SUITE
    before, after = ids(plan(parse_suite(SUITE), DIGEST)), ids(plan(parse_suite(SUITE.replace(old, new)), DIGEST))
    return {method for (domain, method), identity in before.items() if after.get((domain, method)) != identity}


ALL = {"source", "greedy-em", "em-seq", "em-tok", "em-tok-b"}


@pytest.mark.parametrize(
    ("old", "new", "methods"),
    [
        ("steps = 3", "steps = 4", ALL - {"source"}),
        ("candidates = 4", "candidates = 5", {"em-seq", "em-tok", "em-tok-b"}),
        ("candidates = 4", "candidates = 4, learning_rate = 0.01", ALL - {"source"}),
        ("adaptation =", "seeds = [1]\nadaptation =", {"em-seq", "em-tok"}),
        ("utterances = 2", "utterances = 3", ALL),
        ("snr_db = 5", "snr_db = 6", ALL),
        ('name = "demo"', 'name = "demo", precision = "float64"', ALL),
        ('name = "demo"', 'name = "demo", language = "detect"', ALL),
        ('name = "demo"', 'name = "demo", long_audio = "cut"', ALL),
        ('name = "demo"', 'name = "demo", tokens_per_second = 20', ALL),
        ('name = "demo"', 'name = "demo", family = "emtta_core.model.whisper:FAMILY"', ALL),
        ('name = "demo"', 'name = "demo", language = "corpus", long_audio = "refuse"', set()),
    ],
)
def test_option_changes_only_its_cells(old: str, new: str, methods: set[str]) -> None:
    assert changed(old, new) == methods


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "planned"', 'name = "other"'),
        ('name = "demo"', 'name = "demo", device = "cpu"'),
        ("[defaults]", "[runtime]\nbatch_size = 3\nretries = 9\nworkers = 2\n[defaults]"),
        ('group = "noise"', 'group = "loud"'),
    ],
)
def test_irrelevant_setting_is_ignored(old: str, new: str) -> None:
    assert changed(old, new) == set()


def test_other_weights_change_every_cell() -> None:
    suite = parse_suite(SUITE)
    before, after = ids(plan(suite, DIGEST)), ids(plan(suite, DIGEST[::-1]))
    assert all(before[cell] != after[cell] for cell in before)


def test_cells_follow_suite_order() -> None:
    planned = plan(parse_suite(SUITE), DIGEST)
    assert [cell.name for cell in planned.cells[:6]] == [
        "clean/source",
        "clean/greedy-em",
        "clean/em-seq",
        "clean/em-tok",
        "clean/em-tok-b",
        "BA/source",
    ]
    assert all(cell.utterances == 2 for cell in planned.cells)


def test_limit_changes_plan() -> None:
    suite = parse_suite(SUITE)
    limited = plan(suite.model_copy(update={"limit": 1}), DIGEST)
    assert all(cell.utterances == 1 for cell in limited.cells)
    assert limited.plan_id != plan(suite, DIGEST).plan_id


def test_folder_identity_is_content(suite_file: SuiteFile, speech: Speech, tmp_path: Any) -> None:
    def planned() -> Plan:
        return plan(load_suite(str(suite_file())), DIGEST)

    before = planned()
    speech.path.rename(tmp_path / "moved")
    moved = plan(
        load_suite(
            str(
                suite_file(
                    '[[domains]]\nname = "clean"\ngroup = "clean"\ncorpus = { name = "folder", path = "moved" }\n'
                )
            )
        ),
        DIGEST,
    )
    assert moved.plan_id == before.plan_id
    (tmp_path / "moved").rename(speech.path)
    speech.add("another", tone(0.5), "one more")
    assert planned().plan_id != before.plan_id


def test_shared_folder_is_read_once(suite_file: SuiteFile, speech: Speech, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    content_digest = Folder.content_digest
    monkeypatch.setattr(Folder, "content_digest", lambda corpus: read.append(corpus) or content_digest(corpus))
    domains = "".join(
        f'[[domains]]\nname = "{kind}"\ngroup = "noise"\ncorpus = {{ name = "folder", path = "speech" }}\n'
        f'corruption = {{ name = "noise", kind = "{kind}", snr_db = 5 }}\n'
        for kind in ("typing", "munching", "gaussian")
    )
    suite = load_suite(str(suite_file(domains)))
    assert len({cell.corpus_id for cell in plan(suite, DIGEST).cells}) == 3
    assert len(read) == 1
    plan(suite, DIGEST)
    assert len(read) == 2, "what a folder holds may change from plan to plan"


def test_missing_manifest_is_refused(suite_file: SuiteFile) -> None:
    with pytest.raises(UsageError, match="speech"):
        plan(load_suite(str(suite_file())), DIGEST)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ([], 10),
        (["domain=BA"], 5),
        (["domain=BA", "domain=clean"], 10),
        (["method=source"], 2),
        (["domain=BA", "method=source"], 1),
        (["group=noise", "method=source", "method=em-tok"], 2),
    ],
)
def test_selection_matches_every_key(only: list[str], names: int) -> None:
    assert len(select(plan(parse_suite(SUITE), DIGEST).cells, only)) == names


def test_conflicting_selection_is_refused() -> None:
    with pytest.raises(UsageError, match="no cell matches all of group=clean, domain=BA"):
        select(plan(parse_suite(SUITE), DIGEST).cells, ["group=clean", "domain=BA"])


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("domain=AB", "unknown domain 'AB'; choose from: BA, clean"),
        ("method=tent", "unknown method 'tent'; choose from: em-seq"),
        ("group=x", "unknown group 'x'; choose from: clean, noise"),
        ("speaker=x", "not of the form domain="),
        ("BA", "not of the form domain="),
    ],
)
def test_unknown_selection_is_refused(only: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        select(plan(parse_suite(SUITE), DIGEST).cells, [only])


def commands() -> Callable[[list[str]], str]:
    suite: Suite = parse_suite(SUITE)
    cells = plan(suite, DIGEST).cells
    return lambda only: resume_command("run-1", "my store", select(cells, only), cells)


def test_resume_command_selects_cells() -> None:
    command = commands()
    start = "emtta rerun run-1 --store 'my store'"
    assert command([]) == start
    assert command(["domain=BA"]) == f"{start} --domain BA"
    assert command(["method=em-tok"]) == f"{start} --method em-tok"
    assert command(["domain=BA", "method=em-tok"]) == f"{start} --domain BA --method em-tok"


def test_all_cells_need_no_selection() -> None:
    cells = select(plan(parse_suite(SUITE), DIGEST).cells, ["domain=BA"])
    assert resume_command("run-1", "s", cells, cells) == "emtta rerun run-1 --store s"


def test_token_rate_depends_on_language(tmp_path: Path) -> None:
    def cells(language: str, tokens: str = "") -> set[str]:
        corpus = f'corpus = {{ name = "folder", path = "{tmp_path}", language = "{language}" }}'
        suite = parse_suite(
            f'name = "t"\nmethods = ["source", "em-tok"]\nmodel = {{ name = "demo"{tokens} }}\n'
            f'domains = [{{ name = "x", group = "g", {corpus} }}]'
        )
        found = cells_of(suite.domains[0], suite, DIGEST, {"x": Audio("a", 1)})
        return {cell.cell_id for cell in found}

    assert cells("de") == cells("en") == cells("bn", ", tokens_per_second = 12")
    assert cells("bn") == cells("de", ", tokens_per_second = 50")
    assert not cells("bn") & cells("de")


def test_recipe_contains_only_used_options() -> None:
    others = (Options(betas=(0.9, 0.98)), Options(epsilon=1e-6), Options(redraw=False))
    made = {recipe_id(method("em-tok-b"), one, ModelChoice(name="demo"), DIGEST) for one in (Options(), *others)}
    assert len(made) == 4
    assert len({recipe_id(method("mbr"), one, ModelChoice(name="demo"), DIGEST) for one in others}) == 1


@pytest.mark.parametrize(
    ("name", "draws"), [("em-tok-b", False), ("source-beam", False), ("em-tok", True), ("mbr", True)]
)
def test_name_matters_only_if_it_seeds(name: str, draws: bool) -> None:
    usual = method(name)
    renamed = replace(usual, name="mine", summary="of my own")
    one, other = (recipe_id(made, Options(), ModelChoice(name="demo"), DIGEST) for made in (usual, renamed))
    assert (one != other) == draws


def test_scoring_changes_no_identity() -> None:
    usual = plan(parse_suite(SUITE), DIGEST)
    for field in ('scorers = ["basic"]', 'scorers = ["whisper", "jiwer+compounds"]', 'errors = "delete"'):
        assert plan(parse_suite(f"{field}\n{SUITE}"), DIGEST) == usual


GONE = """
[[domains]]
name = "gone"
group = "real"
corpus = { name = "l2arctic", path = "/nowhere" }
"""


def test_missing_corpus_is_isolated() -> None:
    planned, others = plan(parse_suite(SUITE + GONE), DIGEST), plan(parse_suite(SUITE), DIGEST)
    assert set(planned.unavailable) == {"gone"}
    assert "L2-ARCTIC of all accents is not in '/nowhere'" in planned.unavailable["gone"]
    assert {key: cell for key, cell in ids(planned).items() if key[0] != "gone"} == ids(others)
    assert planned.plan_id == plan(parse_suite(SUITE + GONE), DIGEST).plan_id


def test_remark_names_all_its_domains() -> None:
    planned = plan(parse_suite(SUITE + GONE + GONE.replace('"gone"', '"gone-too"')), DIGEST)
    refusal, others = planned.remarks
    assert refusal.startswith(
        "domains gone, gone-too cannot be prepared: L2-ARCTIC of all accents is not in '/nowhere'"
    )
    assert others == "the other domains go on; the cells of gone, gone-too will fail"
    long = replace(planned, unavailable={}, left_out={"a": 2, "b": 2, "c": 1}, notes={"a": ("no text",)})
    assert long.remarks == (
        "domains a, b: without 2 utterances longer than max_seconds",
        "domain c: without 1 utterance longer than max_seconds",
        "domain a: no text",
    )


def test_empty_corpus_is_refused(hub: Hub) -> None:
    librispeech_hub(hub, [])
    empty = SUITE.replace('"synthetic", utterances = 2', '"librispeech"')
    with pytest.raises(UsageError, match="'clean' has no utterance to adapt to; check what it contains, or leave"):
        plan(parse_suite(empty), DIGEST)
    librispeech_hub(hub)
    with pytest.raises(UsageError, match=r"has no utterance that is short enough: 6 are longer than max_seconds"):
        plan(parse_suite(empty.replace('"librispeech"', '"librispeech", max_seconds = 0.1')), DIGEST)


def test_suite_without_corpora_is_refused() -> None:
    head = SUITE.partition("[defaults]")[0]
    with pytest.raises(CorpusError, match="L2-ARCTIC of all accents is not in '/nowhere'"):
        plan(parse_suite(head + GONE), DIGEST)


def test_late_corpus_is_not_prepared(tmp_path: Path) -> None:
    suite = parse_suite(SUITE + GONE.replace("/nowhere", str(tmp_path)))
    (cell, *_) = [cell for cell in plan(suite, DIGEST).cells if cell.domain == "gone"]
    l2arctic_folder(tmp_path, [speaker for speakers in SPEAKERS.values() for speaker in speakers], sentences=1)
    store = Store.open(str(tmp_path / "store"), create=True)
    with pytest.raises(UsageError, match="was not available when the run was planned, and is now; a rerun plans"):
        prepare_domain(suite.domain("gone"), cell.corpus_id, store)
