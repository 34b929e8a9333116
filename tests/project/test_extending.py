"""docs/extending.md works as written: its package, installed in a new environment, is checked, run and reported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emtta_core import entry

PAGE = (entry.ROOT / "docs/extending.md").read_text(encoding="utf-8")
BUILD = "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"


def block(language: str, number: int = 0) -> str:
    """A code block of the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


@pytest.mark.slow
def test_page_loss_is_evaluated(tmp_path: Path) -> None:
    source = tmp_path / "margin-loss"
    source.mkdir()
    loss = block("python")
    assert len([line for line in loss.splitlines() if line]) <= 20
    (source / "margin_loss.py").write_text(loss)
    (source / "pyproject.toml").write_text(block("toml"))
    made = subprocess.run(
        [sys.executable, "-c", BUILD, tmp_path], cwd=source, check=True, capture_output=True, text=True
    )
    venv = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text("\n".join(folder for folder in sys.path if folder.endswith("site-packages")))
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python"]
    wheel = tmp_path / made.stdout.split()[-1]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True, capture_output=True)
    assert (site / "margin_loss.py").exists()

    work = tmp_path / "work"
    work.mkdir()
    (work / "margin.toml").write_text(block("toml", 1))
    commands = block("console").splitlines()
    assert len(commands) == 3
    environment = {**os.environ, "PYTHONPATH": str(entry.ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    outputs = []
    for command in commands:
        name, *words = command.split()
        assert name == "emtta"
        python = [venv / "bin/python", "-m", "emtta_core"]
        done = subprocess.run([*python, *words], cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    for method in ("margin", "margin-greedy"):
        assert re.search(rf"ok +method {method} +utterances side by side as alone, deterministic, finite", outputs[0])
        assert re.search(rf"│ {method} +│ all +│ +\d+\.\d\d │", outputs[2]), outputs[2]


def test_page_source_passes_check(tmp_path: Path, tiny_model: Path) -> None:
    from emtta_core.adaptation import Method
    from emtta_core.adaptation.plugin_check import check_method
    from emtta_core.model import load_model

    (tmp_path / "warm_page.py").write_text(block("python", 1))
    sys.path.insert(0, str(tmp_path))
    try:
        assert check_method(load_model(tiny_model, precision="float64"), Method("warm", "warm_page:warm")) == []
    finally:
        sys.path.remove(str(tmp_path))
