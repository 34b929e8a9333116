"""The benchmark runs as on a GPU machine, with the same code at a tiny shape; without a GPU, its results say so."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BARE = ("torch", "transformers", "numpy", "rich")
LEFT_OUT = ("prefect", "duckdb", "pydantic", "jiwer", "soundfile", "datasets", "pyarrow", "typer")
QUICK = ("--check", "--repeat", "1", "--threads", "1")

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, and would be measured")


@pytest.fixture
def adaptation(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The imported benchmark; torch's number of threads, which it sets, is restored."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    threads = torch.get_num_threads()
    yield importlib.import_module("adaptation")
    torch.set_num_threads(threads)


Check = Callable[..., dict[str, Any]]


@pytest.fixture
def check(adaptation: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Check:
    """Runs the benchmark's check in this process, and returns the JSON that it writes."""

    def run(name: str, *arguments: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["adaptation.py", *map(str, arguments), *QUICK, "--output", str(tmp_path)])
        adaptation.main()
        report: dict[str, Any] = json.loads((tmp_path / f"adaptation-{name}-check.json").read_text())
        return report

    return run


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the benchmark as a user would, and return the completed process."""
    words = [sys.executable, str(ROOT / "benchmarks" / "adaptation.py"), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_gpu_work_is_checked_on_cpu(tmp_path: Path) -> None:
    done = command("base-gpu", "--precision", "bf16", *QUICK, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "adaptation-base-gpu-bf16-check.json").read_text())
    assert report["measured"]
    assert report["check"]
    assert (report["precision"], report["batch_size"]) == ("bf16", "auto")
    assert len(report["machine"]["load_average"]) == 3
    assert report["goal_against_careful"] is None, "a tiny shape has no goal"
    assert set(report["rows"]) == {"ours", "plain", "careful"}
    for row in report["rows"].values():
        assert row["rtfx"] == pytest.approx(row["utterances"] / row["seconds"]), "a second of audio each"
        assert row["seconds_utterance_step"] == pytest.approx(row["seconds"] / row["utterances"] / report["steps"])
        assert row["peak_memory_bytes"] >= row["resting_memory_bytes"] > 0
        assert row["cpu_peak_share"] > 0
        assert row["operations_utterance_step"] > 0
    assert report["rows"]["ours"]["ratio"] == 1
    assert report["rows"]["ours"]["batch_size"] == report["rows"]["ours"]["utterances"] == 4
    assert report["rows"]["ours"]["out_of_memory"] == []
    assert report["rows"]["careful"]["utterances"] == 2, "references are measured on fewer"
    ours, plain = (report["rows"][label]["operations_utterance_step"] for label in ("ours", "plain"))
    assert plain > 2 * ours, "plain encodes for each candidate"


def test_ours_matches_reference(check: Check) -> None:
    report = check("demo-float32", "demo", "--reference-utterances", 3)
    for label in ("plain", "careful"):
        assert report["rows"][label]["texts"] == {"equal": 3, "of": 3, "different": []}


def test_gpu_precision_runs_in_float32(check: Check) -> None:
    report = check("large-gpu-float32", "large-gpu", "--precision", "tf32", "--method", "em-tok", "--batch-size", 3)
    assert "tf32" in report["note"]
    assert (report["batch_size"], report["rows"]["ours"]["batch_size"]) == (3, 3)
    assert "texts" not in report["rows"]["careful"], "each draws candidates of its own"


@pytest.mark.skipif(sys.platform != "linux", reason="a process's memory is limited through Linux")
def test_out_of_memory_is_reported(tmp_path: Path) -> None:
    sizes = ("--utterances", 32, "--batch-size", 32, "--candidates", 32, "--steps", 1, "--references")
    done = command("base", "--spare-memory", 0.1, *sizes, *QUICK, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    ours = json.loads((tmp_path / "adaptation-base-float32-check.json").read_text())["rows"]["ours"]
    assert ours["out_of_memory"][0] == "out of memory with 32 utterances per batch; continuing with 16"
    assert ours["batch_size"] == 32 // 2 ** len(ours["out_of_memory"])
    assert ours["utterances"] == 32, "and no utterance was lost"


def test_sweep_fits_marginal_time(check: Check) -> None:
    report = check("demo-float32-sweep", "demo", "--sweep")
    assert report["clock"] == "cpu_seconds"
    sweeps = report["sweeps"]
    assert set(sweeps) == {"steps", "candidates", "batch_size", "trace", "early_stop", "compaction"}
    assert [row["updates"] for row in sweeps["steps"]["rows"]] == [1, 2, 3]
    assert [row["value"] for row in sweeps["trace"]["rows"]] == ["none", "metrics", "hypotheses"]
    assert sweeps["early_stop"]["rows"][-1]["updates"] <= sweeps["early_stop"]["rows"][0]["updates"]
    assert {"of", "slope", "intercept", "r2"} == set(sweeps["steps"]["fit"]) == set(sweeps["candidates"]["fit"])
    assert sweeps["batch_size"]["flat_or_falling_up_to"] in (1, 2, 4)


def test_line_fit_is_least_squares(adaptation: ModuleType) -> None:
    fit = importlib.import_module("measure").Fit
    assert astuple(fit.of([1, 2, 3], [3, 5, 7])) == pytest.approx((2, 1, 1))
    assert astuple(fit.of([0, 1, 2, 3], [0, 1, 1, 0])) == pytest.approx((0, 0.5, 0))


@needs_no_gpu
def test_missing_gpu_says_not_measured(adaptation: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptation.py", "base-gpu", "large-gpu", "--output", str(tmp_path)])
    adaptation.main()
    names = [f"adaptation-{work}-{precision}" for work in ("base-gpu", "large-gpu") for precision in ("bf16", "tf32")]
    assert sorted(path.stem for path in tmp_path.iterdir()) == names
    for path in tmp_path.iterdir():
        report = json.loads(path.read_text())
        assert not report["measured"]
        assert report["rows"]["ours"] == report["rows"]["careful"] == {"not_measured": "not measured: no GPU here"}


@needs_no_gpu
def test_missing_gpu_keeps_earlier_results(
    adaptation: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "adaptation-base-gpu-bf16.json"
    path.write_text('{"measured": true}')
    monkeypatch.setattr(sys, "argv", ["adaptation.py", "base-gpu", "--precision", "bf16", "--output", str(tmp_path)])
    adaptation.main()
    assert path.read_text() == '{"measured": true}'


def test_profile_names_slowest_operations(
    adaptation: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptation.py", "demo", "--profile", "--utterances", "1", *QUICK])
    adaptation.main()
    assert "aten::addmm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["basic"], "choose from: demo, base, base-gpu, large-gpu"),
        (["demo", "--steps", "0"], "at least 1"),
        (["demo", "--precision", "tf32"], "use 'float32' there"),
        (["demo", "--sweep", "--steps", "3"], "--steps has no place in a sweep"),
    ],
)
def test_unmeasurable_request_is_refused(
    adaptation: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptation.py", *arguments])
    with pytest.raises(SystemExit) as end:
        adaptation.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_only_listed_packages_are_needed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name in needed(BARE) - set(LEFT_OUT):  # their dependencies, except those that the benchmark does without
        distribution = metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            if not (site / part).exists():
                (site / part).symlink_to(str(distribution.locate_file(part)))
    script = ROOT / "benchmarks" / "adaptation.py"
    code = f"""
import runpy, sys
sys.argv = ["adaptation.py", "demo", "--references", "careful", *{QUICK}]
sys.path.insert(0, {str(script.parent)!r})
runpy.run_path({str(script)!r}, run_name="__main__")
print("loaded", sorted(set({LEFT_OUT}) & sys.modules.keys()))
"""
    environment = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "2 of 2" in done.stdout, "the demo model speaks there too"
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_significance_fills_each_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["significance.py", "--quick"])
    importlib.import_module("significance").main()
    shown = capsys.readouterr().out
    for row in ("| loops | 300 | utterances |", "| speakers differ | 4 | speakers |", "| 6 | 4 | speakers |"):
        assert row in shown
    stored = json.loads((ROOT / "benchmarks" / "results" / "significance.json").read_text())
    assert set(stored) == {"alpha", "tests", "speaker coverage", "coverage"}


def test_false_alarm_benchmark_runs() -> None:
    words = [sys.executable, str(ROOT / "benchmarks" / "false_alarms.py"), "--quick"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tables = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("| ") and "---" not in line]
    assert tables == ["utterances", "12", "50", "years", "2", "utterances", "12", "12", "12"]


def needed(names: tuple[str, ...]) -> set[str]:
    """These distributions and all their dependencies."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            wanted = map(Requirement, metadata.requires(name) or [])
            waiting += [need.name for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found
