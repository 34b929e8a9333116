"""Each seed of a suite has its own cells; adding a seed adds only these."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from bench import Bench
from conftest import Command, Speech, SuiteFile

from emtta_core.errors import UsageError
from emtta_core.pipeline.plan import Plan, plan
from emtta_core.pipeline.selection import resume_command, select
from emtta_core.pipeline.state import cell_states
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.suite import load_suite, parse_suite

SUITE = """\
name = "seeded"
methods = {methods}
model = {{ name = "demo" }}
seeds = {seeds}
[[domains]]
name = "clean"
group = "clean"
corpus = {{ name = "synthetic", utterances = 2 }}
"""


def planned(seeds: str, methods: str = '["source", "em-tok", "em-tok-b", "mbr"]') -> Plan:
    return plan(parse_suite(SUITE.format(seeds=seeds, methods=methods)), "d" * 16)


def ids(seeds: str) -> dict[tuple[str, int | None], str]:
    return {(cell.method, cell.seed): cell.cell_id for cell in planned(seeds).cells}


def test_random_methods_have_cell_per_seed() -> None:
    assert [cell.name for cell in planned("[0, 7]").cells] == [
        *("clean/source", "clean/em-tok, seed 0", "clean/em-tok, seed 7"),
        *("clean/em-tok-b", "clean/mbr, seed 0", "clean/mbr, seed 7"),
    ]
    assert [cell.name for cell in planned("[7]").cells][1] == "clean/em-tok"


def test_added_seed_keeps_other_cells() -> None:
    few, more = ids("[0, 1]"), ids("[2, 1, 0]")
    assert few.items() <= more.items()
    assert more.keys() - few.keys() == {("em-tok", 2), ("mbr", 2)}
    assert len(set(more.values())) == len(more)


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ("[]", "at least 1 item"),
        ("[1, 1]", "named twice: 1"),
        ("[-1]", r"seeds\[0\] is -1; it should be greater than or equal to 0"),
        (f"[{2**63}]", "less than 9223372036854775808"),
        ("[0.5]", "valid integer"),
        (str(list(range(101))), "at most 100 items"),
        ("[0]\nadaptation = { seed = 1 }", r"adaptation.seed is 1; set seeds = \[1\] at the top of the suite"),
    ],
)
def test_bad_seeds_are_refused(seeds: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        planned(seeds)


def test_other_methods_have_one_cell() -> None:
    """Even if no method draws random numbers: a suite inherits the seeds of the suite that it extends."""
    assert [cell.name for cell in planned("[0, 1]", '["source"]').cells] == ["clean/source"]


def test_seed_in_method_is_refused() -> None:
    with pytest.raises(UsageError, match=r"methods\[x\]: adaptation.seed is 3; set seeds = \[3\] at the top"):
        planned("[0]", '["source", { name = "x", base = "em-tok", adaptation = { seed = 3 } }]')


def test_cells_are_selected_by_seed() -> None:
    cells = planned("[0, 1]").cells
    assert [cell.method for cell in select(cells, ["seed=1"])] == ["em-tok", "mbr"]
    assert [cell.method for cell in select(cells, ["seed=none"])] == ["source", "em-tok-b"]
    with pytest.raises(UsageError, match="unknown seed '2'; choose from: 0, 1, none"):
        select(cells, ["seed=2"])
    left = select(cells, ["method=em-tok", "seed=1"])
    assert resume_command("r", "s", left, cells) == "emtta rerun r --store s --method em-tok --seed 1"


def seeded(suite_file: SuiteFile, seeds: list[int]) -> Path:
    path = suite_file(methods=("source", "em-tok"), name=f"seeds-{len(seeds)}.toml")
    path.write_text(f"seeds = {seeds}\n" + path.read_text())
    return path


def evaluated(path: Path, store: Path, only: Sequence[str] = ()) -> None:
    """Evaluate cells of a suite as the run `run`, without a flow."""
    bench = Bench(load_suite(str(path)), store)
    for cell in select(bench.plan.cells, only):
        bench.evaluate_cell(cell)


def losses(store: Path, run_id: str) -> dict[int, list[float]]:
    query = (
        "SELECT seed, list(loss ORDER BY utterance_id, step) FROM steps WHERE run_id = $run AND seed >= 0 GROUP BY seed"
    )
    with Catalogue(Store.open(store)) as catalogue:
        return dict(catalogue.query(query, {"run": run_id}).rows)


@pytest.mark.usefixtures("prefect_server")
def test_added_seed_runs_only_its_cells(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    store = tmp_path / "store"
    evaluated(seeded(suite_file, [0, 1]), store)
    grown = seeded(suite_file, [0, 1, 2])
    dry = emtta("run", grown, "--run-id", "three", "--store", store, "--dry-run")
    assert "would do 1 of 4 cells, 3 utterances" in dry.err
    assert "em-tok (seeds 2)" in dry.err + dry.out
    run = emtta("run", grown, "--run-id", "three", "--store", store)
    assert (run.code, "clean/em-tok, seed 2: WER" in run.err) == (0, True), run.err
    done = {
        seed: [(row.done, row.reused) for row in Store.open(store).cells(CellKey("three", "clean", "em-tok", seed))]
        for seed in (0, 1, 2)
    }
    assert done == {0: [], 1: [], 2: [(3, 0)]}
    before, after = losses(store, "run"), losses(store, "three")
    assert before.items() <= after.items()
    assert len({tuple(loss) for loss in after.values()}) == 3
    shown = emtta("report", "seeds", "--run", "three", "--store", store, "--format", "json")
    assert '"seeds": [\n      0,\n      1,\n      2\n    ]' in shown.out


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_rerun_does_one_seed(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    store, path = tmp_path / "store", seeded(suite_file, [0, 1])
    evaluated(path, store, ["seed=none", "seed=0"])
    with Catalogue(Store.open(store)) as catalogue:
        assert catalogue.query("SELECT wer, reason_hidden FROM domains WHERE method = 'em-tok'").rows == [
            (None, "1 of 2 seeds incomplete")
        ]
    assert emtta("rerun", "run", "--store", store, "--seed", "3").code == 2
    assert emtta("rerun", "run", "--store", store, "--seed", "1").code == 0
    assert [state.state for state in cell_states(Store.open(store), "run")] == ["complete"] * 3
    assert emtta("status", "run", "--store", store).code == 0
    again = emtta("rerun", "run", "--store", store, "--seed", "1", "--force")
    assert "would do 1 of 1 cell, 3 utterances" in again.err
    assert [row.attempt for row in Store.open(store).cells(CellKey("run", "clean", "em-tok", 1))] == [1, 2]
