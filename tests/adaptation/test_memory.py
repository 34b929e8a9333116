"""An automatic batch fits in memory: the estimate behind its size is close, and a process stays small."""

import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_speech import DemoSpeech, prepare
from torch.utils._python_dispatch import TorchDispatchMode
from whisper_factory import sounds

from emtta_core.adaptation import method
from emtta_core.adaptation.batch_size import CPU_BYTES, episode_bytes, free_bytes
from emtta_core.adaptation.episode import candidate_loss, prepare_batch, run, source_parameters, split
from emtta_core.adaptation.options import Options
from emtta_core.model import SpeechModel, load_model
from emtta_core.model.candidates import Hypotheses
from emtta_core.model.forward import cross_memory, encode

EACH = 6


class Footprint(TorchDispatchMode):
    """Counts the bytes of the tensors that are created while it is active.

    Attributes:
        now: bytes in use.
        peak: the maximum of `now`.
    """

    def __init__(self, model: SpeechModel):
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in model.weights.tensors()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.now -= size


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> DemoSpeech:
    return prepare(tmp_path_factory.mktemp("demo") / "store", ("TP",), EACH)


@pytest.fixture(scope="module")
def model() -> SpeechModel:
    return load_model("demo", device="cpu")


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("source", 2),
        ("em-tok", 8),
        ("em-tok-b", 16),
        pytest.param("greedy-em", 2, marks=pytest.mark.slow),
        pytest.param("em-tok-b", 8, marks=pytest.mark.slow),
        ("mbr", 64),
        ("source-beam", 2),
    ],
)
def test_memory_estimate_is_close(model: SpeechModel, speech: DemoSpeech, name: str, candidates: int) -> None:
    options = Options(steps=1, candidates=candidates)
    batch = prepare_batch(model, speech.waveforms, speech.languages, speech.ids)
    estimate = sum(episode_bytes(model, method(name), options, int(limit)) for limit in batch.limits)
    with Footprint(model) as footprint:
        run(model, method(name), options, batch)
    assert footprint.peak > 2**20
    assert footprint.peak / 1.6 < estimate < footprint.peak * 1.6


def test_loss_peaks_below_3_2_logit_copies(model: SpeechModel) -> None:
    vocabulary = 40_000
    head = torch.randn(vocabulary, model.weights.width)
    bias = torch.zeros(vocabulary)
    wide = replace(
        model,
        weights=replace(model.weights, head=head),
        policy=replace(model.policy, bias=bias, first_bias=bias),
    )
    batch = prepare_batch(model, sounds([1.0]), ["en"], ["a"])
    candidates = torch.randint(100, (1, 4, 24), generator=torch.Generator().manual_seed(0))
    made = Hypotheses(candidates, torch.ones_like(candidates, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool))
    parameters = source_parameters(wide.weights, 1).requires_grad_()
    norms = split(wide.weights, parameters)
    memory = cross_memory(wide.weights, encode(wide.weights, norms.encoder, batch.stem))
    with Footprint(wide) as footprint:
        loss, _ = candidate_loss(wide, method("em-tok"), norms, memory, batch.prompt, made)
        torch.autograd.grad(loss.total.sum(), parameters)
    contexts = 4 * 23 + 1  # the candidates share only the prompt
    assert footprint.peak < 3.2 * contexts * vocabulary * head.element_size()


def test_estimate_grows_with_episode(model: SpeechModel) -> None:
    def estimate(name: str, limit: int = 40, **options: int) -> int:
        return episode_bytes(model, method(name), Options(**options), limit)

    assert estimate("source") < estimate("mbr", candidates=64) < estimate("em-tok-b", candidates=64)
    assert estimate("source") < estimate("greedy-em") < estimate("em-tok")
    assert estimate("source") < estimate("source-beam", beams=64) < estimate("source-beam", beams=128)
    assert estimate("em-tok-b", candidates=2) < estimate("em-tok-b+beam", candidates=2, beams=400)
    assert estimate("em-tok", candidates=4) < estimate("em-tok", candidates=8)
    assert estimate("em-tok", limit=40) < estimate("em-tok", limit=80)
    assert estimate("em-tok", steps=1) == estimate("em-tok", steps=20)


def test_container_limit_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emtta_core.adaptation.batch_size.GROUP", tmp_path)
    cpu = torch.device("cpu")
    without = free_bytes(cpu)
    assert 0 < without <= CPU_BYTES
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("anon 500000000\ninactive_file 100000000\n")
    for limit, free in (("1000000000", 0.7 * 400e6), ("max", without), (str(10**15), without)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert free_bytes(cpu) == pytest.approx(free, rel=0.1)  # other programs' memory use changes meanwhile


WORK = """
import sys
from emtta_core import Adapter, load_model
from emtta_core.corpora.synthetic import Synthetic

speech = list(Synthetic(language="en", voices=("en-gb-scotland",), utterances=16).read_all())
adapter = Adapter(load_model("demo", device="cpu"), "em-tok-b", steps=2, candidates=16, batch_size="auto")
results = adapter.transcribe([utterance.read() for utterance in speech], "en")
assert [result.error for result in results] == [None] * 16
status = open("/proc/self/status").read()
print(adapter.batch_size, int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process's peak memory")
def test_demo_stays_under_two_gigabytes() -> None:
    # In a new process, with its peak from VmHWM: the peak that getrusage reports is inherited from the parent.
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    batch_size, peak = map(int, done.stdout.split())
    assert batch_size == 16
    assert 100e6 < peak < 2e9
