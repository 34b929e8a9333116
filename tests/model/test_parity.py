"""The functional forward pass is Whisper: features, logits, greedy and beam candidates match transformers."""

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GenerationMixin, WhisperFeatureExtractor, WhisperForConditionalGeneration
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import Adapter
from emtta_core.adaptation.episode import source_parameters, split
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Greedy, Hypotheses, Strategy, generate
from emtta_core.model.forward import grow

SHAPES: dict[str, dict[str, Any]] = {
    "demo checkpoint": {},
    "small random": {"d_model": 32, "heads": 4, "encoder_layers": 3, "decoder_layers": 2},
    "tiny": {"d_model": 384, "heads": 6, "chunk_seconds": 2, "hop_length": 160},
    "base": {"d_model": 512, "heads": 8, "chunk_seconds": 2, "hop_length": 160},
    "small": {"d_model": 768, "heads": 12, "chunk_seconds": 2, "hop_length": 160},
    "large-v3": {"d_model": 1280, "heads": 20, "mel_bins": 128, "chunk_seconds": 1, "hop_length": 160},
    "english-only": {"d_model": 32, "multilingual": False},
    "nothing-suppressed": {"d_model": 32, "suppress": False},
}


class Pair:
    """One checkpoint, loaded by transformers and by emtta."""

    def __init__(self, folder: Path, name: str):
        if name == "demo checkpoint":
            folder = Path(str(resources.files("emtta_core.model") / "demo"))
        else:
            make_checkpoint(folder, **{"encoder_layers": 2, "decoder_layers": 2, **SHAPES[name]})
        self.theirs = WhisperForConditionalGeneration.from_pretrained(folder).eval()
        self.extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self.ours = load_model(folder, device="cpu")
        seconds = self.ours.max_seconds
        self.waveforms = sounds([0.3 * seconds, seconds, 0.6 * seconds], seed=4)
        self.mel = self.ours.front_end.mel(self.waveforms, device=self.ours.device, dtype=self.ours.dtype)
        self.multilingual = len(self.ours.languages) > 1

    @property
    def arguments(self) -> dict[str, str]:
        return {"language": "de", "task": "transcribe"} if self.multilingual else {}

    def prompt(self) -> Tensor:
        return self.ours.prompt.rows(["de" if self.multilingual else "en"] * len(self.waveforms), self.ours.device)

    def generate(self, strategy: Strategy, limit: int) -> Hypotheses:
        norms, memory = listen(self.ours, self.mel)
        limits = torch.full((len(self.mel),), limit)
        with torch.no_grad():
            return generate(
                self.ours.weights, norms.decoder, memory, self.prompt(), self.ours.policy, limits, [strategy]
            )[0]


def listen(model: SpeechModel, mel: Tensor) -> tuple[forward.Norms, forward.Memory]:
    norms = split(model.weights, source_parameters(model.weights, len(mel)))
    encoded = forward.encode(model.weights, norms.encoder, model.front_end.stem(mel))
    return norms, forward.cross_memory(model.weights, encoded)


SLOW = {"base", "small"}
"""Sizes between those that are always tested."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SHAPES],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("checkpoint"), request.param)


def test_log_mel_matches_extractor(pair: Pair) -> None:
    theirs = pair.extractor(pair.waveforms, sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(pair.mel, theirs, rtol=0, atol=1e-4)


def test_forced_logits_match_whisper(pair: Pair) -> None:
    prompt = pair.prompt()
    start = prompt.shape[1]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(pair.theirs.config.vocab_size, (len(prompt), 3, 9), generator=generator)
    tokens[:, 1, :5] = tokens[:, 0, :5]  # a shared prefix
    lengths = torch.tensor([[9, 7, 1], [4, 9, 9], [9, 6, 2]])
    mask = torch.arange(9) < lengths.unsqueeze(-1)
    tree = grow(prompt, tokens, mask, dtype=torch.float32)
    with torch.no_grad():
        norms, memory = listen(pair.ours, pair.mel)
        hidden = forward.decode(pair.ours.weights, norms.decoder, memory, tree.nodes, tree.visible)
        ours = forward.logits(pair.ours.weights, hidden[tree.contexts])
        for row in range(3):
            ids = torch.cat([prompt, tokens[:, row, :-1]], dim=1)
            theirs = pair.theirs(input_features=pair.mel, decoder_input_ids=ids).logits[:, start - 1 :]
            for utterance in range(len(prompt)):
                keep = mask[utterance, row]
                torch.testing.assert_close(
                    ours[tree.owner[utterance, row][keep]], theirs[utterance][keep], rtol=0, atol=1e-4
                )


def test_greedy_matches_generate(pair: Pair) -> None:
    limit = 24
    made = pair.generate(Greedy(), limit)
    with torch.no_grad():
        theirs = pair.theirs.generate(pair.mel, max_new_tokens=limit, do_sample=False, num_beams=1, **pair.arguments)
    end = pair.ours.policy.end
    expected = torch.full((len(pair.mel), limit), end)
    expected[:, : theirs.shape[1]] = theirs
    for utterance, sequence in enumerate(expected.tolist()):
        length = sequence.index(end) + 1 if end in sequence else limit
        assert made.tokens[utterance, 0][made.mask[utterance, 0]].tolist() == sequence[:length]


@pytest.mark.parametrize("beams", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_beams_match_generate(pair: Pair, beams: int) -> None:
    limit = 14
    made = pair.generate(BeamSearch(beams), limit)
    with torch.no_grad():
        theirs = GenerationMixin.generate(
            pair.theirs,
            pair.mel,
            decoder_input_ids=pair.prompt(),
            max_new_tokens=limit,
            do_sample=False,
            num_beams=beams,
            num_return_sequences=beams,
        )[:, pair.prompt().shape[1] :]
        best = pair.theirs.generate(pair.mel, max_new_tokens=limit, num_beams=beams, **pair.arguments)
    # Whisper's own `generate` runs a separate search per returned sequence, so all of them equal the best beam.
    assert (theirs[::beams, : best.shape[1]] == best).all()
    end = pair.ours.policy.end
    expected = torch.full((len(pair.mel) * beams, limit), end)
    expected[:, : theirs.shape[1]] = theirs
    for row, sequence in enumerate(expected.tolist()):
        utterance, beam = divmod(row, beams)
        length = sequence.index(end) + 1 if end in sequence else limit
        assert made.tokens[utterance, beam][made.mask[utterance, beam]].tolist() == sequence[:length]


def test_beam_decision_matches_generate(pair: Pair) -> None:
    language = "de" if pair.multilingual else "en"
    results = Adapter(pair.ours, "source-beam", beams=4).transcribe(pair.waveforms, language)
    for mel, waveform, result in zip(pair.mel, pair.waveforms, results, strict=True):
        limit = pair.ours.max_tokens(len(waveform), language)
        with torch.no_grad():
            (best,) = pair.theirs.generate(mel[None], max_new_tokens=limit, num_beams=4, **pair.arguments).tolist()
        # Whisper's `generate` may cut the end token off.
        spoken = [token for token in best if token != pair.ours.policy.end]
        assert result.hypothesis == pair.ours.tokenizer.decode(spoken, skip_special_tokens=True).strip()
        assert result.tokens == len(spoken) + ("truncated" not in result.flags)
        assert "truncated" not in result.flags or len(spoken) == limit


def test_candidates_ignore_neighbours(pair: Pair) -> None:
    together = pair.generate(BeamSearch(3), 10)
    mel = pair.mel
    for utterance in range(len(mel)):
        pair.mel = mel[utterance : utterance + 1]
        alone = pair.ours.prompt.rows(["de" if pair.multilingual else "en"], pair.ours.device)
        norms, memory = listen(pair.ours, pair.mel)
        made = generate(
            pair.ours.weights, norms.decoder, memory, alone, pair.ours.policy, torch.tensor([10]), [BeamSearch(3)]
        )[0]
        pair.mel = mel
        for beam in range(3):
            ours = together.tokens[utterance, beam][together.mask[utterance, beam]].tolist()
            assert made.tokens[0, beam][made.mask[0, beam]].tolist() == ours


def test_waveform_is_padded_not_stretched(pair: Pair) -> None:
    short = [pair.waveforms[0]]
    padded = [np.pad(pair.waveforms[0], (0, 1000))]
    arguments = {"device": pair.ours.device, "dtype": pair.ours.dtype}
    mel = pair.ours.front_end.mel
    torch.testing.assert_close(mel(short, **arguments), mel(padded, **arguments))
