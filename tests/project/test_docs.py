"""The pages' links resolve, and the README's examples work."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emtta_core.suite import parse_suite

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_readme_suite_is_valid(tmp_path: Path) -> None:
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    assert [domain.name for domain in parse_suite(block, folder=tmp_path).domains] == ["support-calls"]


def test_readme_python_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    with np.load(ROOT / "benchmarks" / "speech.npz") as stored:  # from benchmarks/speech.py, in mu-law
        curve = 2 * stored["codes"][: stored["ends"][0]].astype(np.float64) / 255 - 1
    soundfile.write("recordings/call.wav", np.sign(curve) * np.expm1(np.abs(curve) * np.log1p(255)) / 255, 16_000)
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(compile(block, "README.md", "exec"), {})
    assert "shovel" in capsys.readouterr().out


def test_readme_result_says_synthetic() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## First result")[1].split("\n## ")[0]
    assert "synthetic" in section
    for method in ("source", "greedy-em", "em-seq", "em-tok", "em-tok-b"):
        assert f"| {method} |" in section.replace("**", "").replace("`", "")
