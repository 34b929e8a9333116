"""The interval of a change over several seeds includes the variance that they add, and counts no seed as new speech."""

import importlib
from pathlib import Path

import numpy as np
import pytest


def test_interval_of_mean_errors_covers_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    found = importlib.import_module("seeds").coverage(40, 5, 40, np.random.default_rng(1))
    assert found.averaged >= 0.88
    assert found.as_utterances <= 0.75
