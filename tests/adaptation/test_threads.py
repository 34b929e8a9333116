"""The engine uses as many threads as suit the model and the free cores, only during its own call."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from whisper_factory import make_checkpoint, sounds

from emtta_core import cores
from emtta_core.adaptation import Adapter, threads
from emtta_core.adaptation.threads import sized_threads
from emtta_core.cores import CoreTimes, free_cores
from emtta_core.model import SpeechModel, load_model
from emtta_core.suite import Runtime
from emtta_core.worker.devices import choose_devices

LARGE, DEMO = 1280, 160


def model_of(width: int, device: str = "cpu") -> SpeechModel:
    return cast(SpeechModel, SimpleNamespace(device=torch.device(device), width=width))


@pytest.fixture(autouse=True)
def usual() -> Iterator[int]:
    """Set eight threads for the process, as a user might."""
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield 8
    torch.set_num_threads(before)


def free(monkeypatch: pytest.MonkeyPatch, policy: str, count: float) -> None:
    """Set OpenMP's wait policy and the number of free cores."""
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(threads, "free_cores", lambda _: count)
    monkeypatch.setattr(CoreTimes, "now", lambda: None)


@pytest.mark.parametrize(
    ("policy", "width", "found", "expected"),
    [
        ("", LARGE, 16.0, 8),
        ("", LARGE, 2.6, 3),
        ("", LARGE, 0.1, 1),
        ("", DEMO, 16.0, 1),
        ("active", LARGE, 1.2, 1),
        ("passive", LARGE, 0.1, 8),
        ("PASSIVE", DEMO, 0.1, 2),
        ("passive", 64, 16.0, 1),
    ],
)
def test_count_suits_model_and_free_cores(
    monkeypatch: pytest.MonkeyPatch, policy: str, width: int, found: float, expected: int
) -> None:
    free(monkeypatch, policy, found)
    with sized_threads(model_of(width)):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 8


def test_gpu_keeps_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, "", 1.0)
    with sized_threads(model_of(LARGE, "cuda")):
        assert torch.get_num_threads() == 8


def test_count_is_restored_after_error(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, "", 1.0)
    with pytest.raises(RuntimeError, match="lost"), sized_threads(model_of(LARGE)):
        raise RuntimeError("lost")
    assert torch.get_num_threads() == 8


def test_concurrent_calls_keep_user_count(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, "", 1.0)
    first_inside, second_inside = threading.Event(), threading.Event()
    found: list[int] = []

    def first() -> None:
        with sized_threads(model_of(LARGE)):
            first_inside.set()
            second_inside.wait(60)
        found.append(torch.get_num_threads())

    def second() -> None:
        first_inside.wait(60)
        with sized_threads(model_of(LARGE)):
            second_inside.set()
            one.join(60)
        found.append(torch.get_num_threads())

    one, other = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    other.start()
    other.join(60)
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join(60)
    assert found == [8, 8, 8]
    assert torch.get_num_threads() == 8


@pytest.mark.parametrize(("left", "warned"), [(8.0, False), (7.7, False), (5.0, True)])
def test_newly_busy_cores_are_logged(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, left: float, warned: bool
) -> None:
    free(monkeypatch, "", 8.0)
    monkeypatch.setattr(CoreTimes, "now", lambda: CoreTimes(0.0, 0.0, 0.0))
    monkeypatch.setattr(CoreTimes, "free_since", lambda *_: left)
    with sized_threads(model_of(LARGE)):
        pass
    warnings = [str(warning.message) for warning in recwarn]
    assert [("OMP_WAIT_POLICY=PASSIVE" in text, "torch.set_num_threads(1)" in text) for text in warnings] == [
        (True, True)
    ] * warned


def test_call_restores_thread_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    adapter = Adapter(load_model(make_checkpoint(tmp_path), device="cpu"), "source", batch_size=1)
    inside: list[int] = []
    adapt = adapter._adapt

    def look(*given: Any) -> Any:
        inside.append(torch.get_num_threads())
        return adapt(*given)

    monkeypatch.setattr(adapter, "_adapt", look)
    between = [torch.get_num_threads() for _ in adapter.batches(sounds([0.5, 0.6]))]
    assert (inside, between, torch.get_num_threads()) == ([1, 1], [8, 8], 8)


def test_busy_cores_exclude_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(cores, "TIMES", stat)
    monkeypatch.setattr(cores, "_affinity", lambda: {0, 1})
    monkeypatch.setattr(cores, "cores", lambda: 2)
    monkeypatch.setattr(cores.os, "sysconf", lambda _: 100)
    stat.write_text("cpu 9 9 9 9 9 9 9 9\ncpu0 0 0 0 100 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0\ncpu2 5 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(cores.time, "process_time", lambda: 1.0)
    before = CoreTimes.now()
    # One second later: cpu0 was always busy, half of it with this process; cpu1 was idle; cpu2 is not available to us.
    stat.write_text("cpu 9 9 9 9 9 9 9 9\ncpu0 60 40 0 100 0 0 0 0\ncpu1 0 0 0 150 50 0 0 0\ncpu2 99 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(cores.time, "process_time", lambda: 1.5)
    after = CoreTimes.now()
    assert before is not None
    assert after is not None
    assert after.free_since(before) == pytest.approx(1.5)
    assert before.free_since(before) == 2.0, "no time has passed, so the load is unknown"


def test_cores_are_free_without_cpu_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cores, "TIMES", tmp_path / "none")
    assert free_cores(0.0) == cores.cores()


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("active", "active")])
def test_workers_sleep_by_default(monkeypatch: pytest.MonkeyPatch, own: str | None, expected: str) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    for device in choose_devices("cpu", Runtime(workers=2)):
        assert device.environment["OMP_WAIT_POLICY"] == expected
