"""The engine's adapted parameters equal those of a plain autograd loop over transformers' model."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import method
from emtta_core.adaptation.episode import prepare_batch, run
from emtta_core.adaptation.options import Options
from emtta_core.model.load import from_transformers
from emtta_core.model.weights import prepare

STEPS, BEAMS, RATE = 3, 4, 1e-2


def references() -> ModuleType:
    """Import the benchmark's references."""
    path = Path(__file__).parents[2] / "benchmarks" / "references.py"
    spec = importlib.util.spec_from_file_location("references", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_out_of_memory_restores_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path)
    network = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer, extractor = WhisperTokenizer.from_pretrained(folder), WhisperFeatureExtractor.from_pretrained(folder)
    model = from_transformers(network, extractor, tokenizer, name="test", device="cpu")
    source = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    reference = references().Reference(model, network, method("em-tok-b"), encode_once=True)

    def step(*_: object) -> None:
        reference.norms[0].data.add_(1.0)
        raise MemoryError

    monkeypatch.setattr(reference, "step", step)
    with pytest.raises(MemoryError):
        reference.transcribe(sounds([0.2]), "en", steps=1, candidates=2, rate=RATE)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, source[name], rtol=0, atol=0)


@pytest.mark.parametrize("encode_once", [False, True], ids=["plain", "careful"])
def test_parameters_match_after_episode(tmp_path: Path, encode_once: bool) -> None:
    folder = make_checkpoint(tmp_path)
    network = WhisperForConditionalGeneration.from_pretrained(folder).double().eval()
    tokenizer, extractor = WhisperTokenizer.from_pretrained(folder), WhisperFeatureExtractor.from_pretrained(folder)
    model = from_transformers(network, extractor, tokenizer, name="test", device="cpu", precision="float64")
    waveforms = sounds([0.8, 1.5])
    options = Options(STEPS, BEAMS, RATE)
    batch = prepare_batch(model, waveforms, ["en", "en"], ["a", "b"])
    _, parameters = run(model, method("em-tok-b"), options, batch)

    reference = references().Reference(model, network, method("em-tok-b"), encode_once=encode_once)
    source = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for row, waveform in enumerate(waveforms):
        mel = model.front_end.mel([waveform], device=model.device, dtype=model.dtype)
        optimizer = torch.optim.AdamW(reference.norms, lr=RATE, weight_decay=options.weight_decay)
        for _ in range(STEPS):
            reference.step(mel, batch.prompt[:1], int(batch.limits[row]), BEAMS, optimizer)
        adapted = prepare(network, device=model.device, precision=model.precision).norms.flatten()
        assert (adapted - model.weights.norms.flatten()).abs().max() > 1e-3
        torch.testing.assert_close(parameters[row], adapted, rtol=1e-9, atol=1e-9)
        network.load_state_dict(source)
