"""Cells share a machine's cores as the suite says, or by default as suits the device."""

import threading
from pathlib import Path

import pytest
import torch

from emtta_core.cores import cores
from emtta_core.suite import Runtime
from emtta_core.worker.devices import cells_at_once, share_cores


@pytest.mark.parametrize(("workers", "device", "cells"), [(None, "cuda:0", 1), (3, "cpu", 3), (3, "cuda:0", 3)])
def test_suite_setting_beats_default(workers: int | None, device: str, cells: int) -> None:
    assert cells_at_once(Runtime(workers=workers), device) == cells


def test_cells_never_exceed_cpu_cores() -> None:
    assert 1 <= cells_at_once(Runtime(), "cpu") <= cores()


@pytest.mark.parametrize(
    ("quota", "found"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None)]
)
def test_container_quota_limits_cores(
    quota: str, found: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emtta_core.cores.QUOTA", tmp_path / "none")
    unlimited = cores()
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("emtta_core.cores.QUOTA", tmp_path / "cpu.max")
    assert cores() == (found or unlimited)


def test_concurrent_cells_split_cores() -> None:
    found: list[int] = []

    def look() -> None:
        share_cores(Runtime(workers=cores()), "cpu")
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [1]
