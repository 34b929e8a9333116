"""Speech2Text joins by one file: its encoder, logits and greedy search are transformers', and methods adapt it."""

import json
import math
from pathlib import Path

import pytest
import torch
from speech2text_factory import make_speech2text
from transformers import Speech2TextFeatureExtractor, Speech2TextForConditionalGeneration
from whisper_factory import sounds

from emtta_core.adaptation import METHODS, Adapter
from emtta_core.adaptation.episode import source_parameters, split
from emtta_core.errors import ModelError, UsageError
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.candidates import Greedy, generate
from emtta_core.model.forward import grow

SECONDS = (1.3, 4.0, 0.4, 2.2)


class Pair:
    """One checkpoint, loaded by transformers and by emtta, and waveforms of different lengths.

    Transformers hears each alone: in a batch, its convolutions let the padding into the last positions of the shorter.
    """

    def __init__(self, folder: Path):
        self.folder = make_speech2text(folder)
        self.theirs = Speech2TextForConditionalGeneration.from_pretrained(folder).eval()
        self.extractor = Speech2TextFeatureExtractor.from_pretrained(folder)
        self.ours = load_model(folder, device="cpu")
        self.waveforms = sounds(SECONDS, seed=4)
        self.inputs = [
            dict(self.extractor(waveform, sampling_rate=16_000, return_tensors="pt").items())
            for waveform in self.waveforms
        ]

    def encoded(self) -> tuple[forward.Norms, torch.Tensor, torch.Tensor | None]:
        heard = self.ours.front_end(self.waveforms, device=self.ours.device, dtype=self.ours.dtype)
        norms = split(self.ours.weights, source_parameters(self.ours.weights, len(self.waveforms)))
        return norms, forward.encode(self.ours.weights, norms.encoder, heard.rows, heard.audible), heard.audible


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("speech2text"))


def test_config_identifies_it(pair: Pair) -> None:
    assert pair.ours.sample_rate == 16_000
    assert pair.ours.languages == ("en",)
    assert pair.ours.max_seconds == pytest.approx(4.0, abs=0.02)
    assert pair.ours.size == pair.theirs.num_parameters() + pair.ours.front_end.table.numel() + (
        pair.ours.weights.decoder_positions.numel() + pair.ours.weights.embedding.numel()  # the embedding, scaled
    )
    assert load_model(pair.folder, device="cpu").digest == pair.ours.digest


def test_encoder_matches_transformers(pair: Pair) -> None:
    with torch.no_grad():
        _, ours, _ = pair.encoded()
        theirs = [pair.theirs.model.encoder(**inputs).last_hidden_state[0] for inputs in pair.inputs]
    assert len({len(states) for states in theirs}) == len(SECONDS)
    for row, states in zip(ours, theirs, strict=True):
        torch.testing.assert_close(row[: len(states)], states, rtol=0, atol=1e-4)


def test_forced_logits_match_transformers(pair: Pair) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, pair.theirs.config.vocab_size, (len(SECONDS), 2, 7), generator=generator)
    tokens[:, 1, :3] = tokens[:, 0, :3]  # a common beginning
    mask = torch.ones(tokens.shape, dtype=torch.bool)
    prompt = pair.ours.prompt.rows(["en"] * len(SECONDS), pair.ours.device)
    tree = grow(prompt, tokens, mask, dtype=torch.float32)
    with torch.no_grad():
        norms, encoded, audible = pair.encoded()
        memory = forward.cross_memory(pair.ours.weights, encoded, audible)
        hidden = forward.decode(pair.ours.weights, norms.decoder, memory, tree.nodes, tree.visible)
        ours = forward.logits(pair.ours.weights, hidden[tree.contexts])
        for utterance, inputs in enumerate(pair.inputs):
            for candidate in range(2):
                ids = torch.cat([prompt[:1], tokens[utterance : utterance + 1, candidate, :-1]], dim=1)
                theirs = pair.theirs(**inputs, decoder_input_ids=ids).logits[0]
                torch.testing.assert_close(ours[tree.owner[utterance, candidate]], theirs, rtol=0, atol=1e-4)


def test_greedy_matches_generate(pair: Pair) -> None:
    limit, end, pad = 20, pair.ours.policy.end, pair.theirs.config.pad_token_id
    with torch.no_grad():
        norms, encoded, audible = pair.encoded()
        memory = forward.cross_memory(pair.ours.weights, encoded, audible)
        prompt = pair.ours.prompt.rows(["en"] * len(SECONDS), pair.ours.device)
        limits = torch.full((len(SECONDS),), limit)
        (made,) = generate(pair.ours.weights, norms.decoder, memory, prompt, pair.ours.policy, limits, [Greedy()])
        options = {"max_new_tokens": limit, "do_sample": False, "num_beams": 1, "suppress_tokens": [pad]}
        theirs = [pair.theirs.generate(**inputs, **options)[0, 1:].tolist() for inputs in pair.inputs]
    ended = 0
    for row, sequence in enumerate(theirs):
        wanted = sequence[: sequence.index(end) + 1] if end in sequence else sequence
        ended += end in sequence
        assert made.tokens[row, 0][made.mask[row, 0]].tolist() == wanted
    assert ended > 0


@pytest.mark.parametrize("method", [*METHODS])
def test_batched_methods_match_alone(pair: Pair, method: str) -> None:
    adapter = Adapter(pair.ours, method, steps=2, candidates=3, learning_rate=3e-3, batch_size=4)
    names = [f"u{index}" for index in range(len(SECONDS))]
    together = adapter.transcribe(pair.waveforms, utterance_ids=names)
    for index in (0, 2):
        (alone,) = adapter.transcribe([pair.waveforms[index]], utterance_ids=[names[index]])
        assert alone.hypothesis == together[index].hypothesis
        assert math.isclose(alone.entropy_after, together[index].entropy_after, abs_tol=1e-3)
        assert alone.error is None
    moved = [abs(each.entropy_after - each.entropy_before) for each in together]
    assert (max(moved) > 1e-5) == (METHODS[method].candidates != "none")


def test_window_limits_waveforms(pair: Pair) -> None:
    long, short = Adapter(pair.ours, "source").transcribe([sounds([4.2])[0], sounds([0.02])[0]])
    assert "takes at most" in str(long.error)
    assert "needs at least 560" in str(short.error)


def test_unsupported_options_are_refused(tmp_path: Path, pair: Pair) -> None:
    with pytest.raises(ModelError, match="makes 40 mel bins but its encoder takes 80"):
        load_model(make_speech2text(tmp_path / "bins", mel_bins=40), device="cpu")
    with pytest.raises(ModelError, match=r"dither 1\.0"):
        load_model(make_speech2text(tmp_path / "dither", dither=1.0), device="cpu")
    with pytest.raises(UsageError, match="unknown language 'de'"):
        Adapter(pair.ours, "source").transcribe(pair.waveforms, language="de")


def test_translation_model_is_refused(tmp_path: Path) -> None:
    folder = make_speech2text(tmp_path / "translates")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"lang_codes": "mustc", "tgt_lang": "de"}))
    with pytest.raises(ModelError, match=r"translates into de, es"):
        load_model(folder, device="cpu")


def test_float64_gives_same_result(pair: Pair) -> None:
    fine: SpeechModel = load_model(pair.folder, device="cpu", precision="float64")
    (one,) = Adapter(fine, "em-tok-b", steps=1, candidates=2).transcribe(pair.waveforms[:1])
    (other,) = Adapter(pair.ours, "em-tok-b", steps=1, candidates=2).transcribe(pair.waveforms[:1])
    assert math.isclose(one.entropy_before, other.entropy_before, rel_tol=1e-4)
