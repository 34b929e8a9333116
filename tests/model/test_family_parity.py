"""Families with input of variable length: encoder, logits and search match transformers, and methods adapt them."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from generic_factory import make_moonshine
from speech2text_factory import make_speech2text
from transformers import (
    AutoFeatureExtractor,
    AutoModelForSpeechSeq2Seq,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    Wav2Vec2FeatureExtractor,
)
from whisper_factory import sounds

from emtta_core.adaptation import METHODS, Adapter
from emtta_core.adaptation.episode import source_parameters, split
from emtta_core.adaptation.parameters import parameter_names
from emtta_core.errors import ModelError, UsageError
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Greedy, Hypotheses, Strategy, generate
from emtta_core.model.forward import grow
from emtta_core.model.load import from_transformers

SECONDS = (1.3, 4.0, 0.4, 2.2)

KINDS: dict[str, Callable[[Path], Path]] = {
    "speech_to_text": make_speech2text,
    "moonshine": make_moonshine,
    # the attention heads of moonshine-tiny: 36 columns, 32 of them rotated
    "moonshine-tiny": partial(
        make_moonshine,
        hidden_size=288,
        intermediate_size=1152,
        encoder_num_attention_heads=8,
        decoder_num_attention_heads=8,
        partial_rotary_factor=0.9,
        pad_head_dim_to_multiple_of=8,
    ),
}


class Pair:
    """One checkpoint, loaded by transformers and by emtta, and waveforms of different lengths.

    Transformers gets one waveform at a time: in a batch, its convolutions mix padding into the end of shorter ones.
    """

    def __init__(self, folder: Path, kind: str):
        self.kind = kind
        self.folder = KINDS[kind](folder)
        self.theirs = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
        self.extractor = AutoFeatureExtractor.from_pretrained(folder)
        self.ours = load_model(folder, device="cpu")
        self.waveforms = sounds(SECONDS, seed=4)
        self.inputs = [
            dict(self.extractor(waveform, sampling_rate=16_000, return_tensors="pt").items())
            for waveform in self.waveforms
        ]

    def encoded(self) -> tuple[forward.Norms, torch.Tensor, torch.Tensor | None]:
        inputs = self.ours.front_end(self.waveforms, device=self.ours.device, dtype=self.ours.dtype)
        norms = split(self.ours.weights, source_parameters(self.ours.weights, len(self.waveforms)))
        return norms, forward.encode(self.ours.weights, norms.encoder, inputs.rows, inputs.audible), inputs.audible

    def prompt(self) -> torch.Tensor:
        return self.ours.prompt.rows(["en"] * len(SECONDS), self.ours.device)

    def generate(self, strategy: Strategy, limit: int) -> Hypotheses:
        with torch.no_grad():
            norms, encoded, audible = self.encoded()
            memory = forward.cross_memory(self.ours.weights, encoded, audible)
            limits = torch.full((len(SECONDS),), limit)
            return generate(
                self.ours.weights, norms.decoder, memory, self.prompt(), self.ours.policy, limits, [strategy]
            )[0]

    def theirs_generate(self, limit: int, **options: Any) -> list[list[list[int]]]:
        """Return each utterance's sequences after the prompt, up to and including the end token."""
        silent = {"suppress_tokens": [self.theirs.config.pad_token_id]} if self.kind == "speech_to_text" else {}
        return [
            [self._cut(row) for row in self.theirs.generate(**inputs, max_new_tokens=limit, **silent, **options)]
            for inputs in self.inputs
        ]

    def _cut(self, row: torch.Tensor) -> list[int]:
        tokens, end = row[1:].tolist(), self.ours.policy.end
        return tokens[: tokens.index(end) + 1] if end in tokens else tokens


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("family"), request.param)


@pytest.fixture(scope="module")
def speech2text(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("speech2text"), "speech_to_text")


@pytest.fixture(scope="module")
def moonshine(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("moonshine"), "moonshine")


def test_speech2text_loads_as_configured(speech2text: Pair) -> None:
    assert speech2text.ours.sample_rate == 16_000
    assert speech2text.ours.languages == ("en",)
    assert speech2text.ours.max_seconds == pytest.approx(4.0, abs=0.02)
    assert speech2text.ours.size == speech2text.theirs.num_parameters() + speech2text.ours.front_end.table.numel() + (
        speech2text.ours.weights.decoder_positions.numel()
        + speech2text.ours.weights.embedding.numel()  # the embedding, scaled
    )
    assert load_model(speech2text.folder, device="cpu").digest == speech2text.ours.digest


def test_moonshine_loads_as_configured(moonshine: Pair) -> None:
    model = moonshine.ours
    assert (model.sample_rate, model.languages) == (16_000, ())
    assert model.max_seconds == pytest.approx(97 / 6.5, abs=1e-3)
    assert model.policy.max_tokens(60.0, "de", model.prompt.length) == 95
    longest = moonshine.theirs.model.encoder(torch.zeros(1, model.front_end.longest)).last_hidden_state
    assert model.front_end.positions == longest.shape[1]
    assert model.size == moonshine.theirs.num_parameters() + model.weights.frequencies.numel()
    adapted = [name for name, _ in moonshine.theirs.named_parameters() if "norm" in name and "groupnorm" not in name]
    assert len(parameter_names(model.weights)) == len(adapted) == model.weights.norms.flatten(0, 1).shape[0]
    assert load_model(moonshine.folder, device="cpu").digest == model.digest


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
    tokens[:, 1, :3] = tokens[:, 0, :3]  # a shared prefix
    mask = torch.ones(tokens.shape, dtype=torch.bool)
    prompt = pair.prompt()
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
    made = pair.generate(Greedy(), 20)
    assert token_lists(made) == pair.theirs_generate(20)
    assert made.ended.any()


@pytest.mark.parametrize("beams", [2, 5])
def test_beams_match_generate(pair: Pair, beams: int) -> None:
    made = pair.generate(BeamSearch(beams), 14)
    assert token_lists(made) == pair.theirs_generate(14, num_beams=beams, num_return_sequences=beams)


def token_lists(made: Hypotheses) -> list[list[list[int]]]:
    return [
        [tokens[mask].tolist() for tokens, mask in zip(*rows, strict=True)]
        for rows in zip(made.tokens, made.mask, strict=True)
    ]


def quick(*names: str) -> list[object]:
    """Return all methods; those not named here, which use no other code of a family, are marked slow."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


@pytest.mark.parametrize("method", quick("source", "source-beam", "greedy-em", "em-seq", "em-tok", "em-tok-b+mbr"))
def test_batched_methods_match_single(speech2text: Pair, method: str) -> None:
    assert_same_alone(speech2text, method)


@pytest.mark.parametrize("method", quick("source", "em-tok", "em-tok-b"))
def test_moonshine_batch_changes_nothing(moonshine: Pair, method: str) -> None:
    assert_same_alone(moonshine, method)


def assert_same_alone(pair: Pair, method: str) -> None:
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


@pytest.mark.parametrize(("kind", "seconds", "least"), [("speech2text", 4.2, 560), ("moonshine", 15.0, 895)])
def test_window_limits_waveforms(request: pytest.FixtureRequest, kind: str, seconds: float, least: int) -> None:
    model = request.getfixturevalue(kind).ours
    shortest = sounds([1.0])[0][:least]
    long, short, fits = Adapter(model, "source").transcribe([sounds([seconds])[0], shortest[:-1], shortest])
    assert "takes at most" in str(long.error)
    assert f"needs at least {least}" in str(short.error)
    assert fits.error is None


def test_unsupported_options_are_refused(tmp_path: Path, speech2text: Pair) -> None:
    with pytest.raises(ModelError, match="returns 40 mel bins but its encoder takes 80"):
        load_model(make_speech2text(tmp_path / "bins", mel_bins=40), device="cpu")
    with pytest.raises(ModelError, match=r"dither 1\.0"):
        load_model(make_speech2text(tmp_path / "dither", dither=1.0), device="cpu")
    with pytest.raises(UsageError, match="unknown language 'de'"):
        Adapter(speech2text.ours, "source").transcribe(speech2text.waveforms, language="de")


def test_moonshine_ignores_language(moonshine: Pair) -> None:
    english, german = (
        Adapter(moonshine.ours, "source").transcribe(moonshine.waveforms, language=language)
        for language in ("en", "de")
    )
    assert [result.hypothesis for result in english] == [result.hypothesis for result in german]
    with pytest.raises(UsageError, match=r"has no language tokens, so there is none to detect; .*'corpus'"):
        moonshine.ours.prompt.common()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_hidden_act": "silu"}, r"encoder_hidden_act is 'silu' .* supports only 'gelu'"),
        ({"decoder_hidden_act": "gelu"}, r"decoder_hidden_act is 'gelu' .* supports only 'silu'"),
        ({"attention_bias": True}, r"attention_bias is True .* supports only False"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            r"rope_type is 'linear' .* supports only 'default'",
        ),
        ({"hidden_size": 36}, r"head_dim is 9 .* supports only hidden_size \(36\) / 4, if even"),
        ({"head_dim": 6}, r"head_dim is 6 .* hidden_size \(32\) / 4, if even"),
    ],
)
def test_unsupported_moonshine_is_refused(moonshine: Pair, changes: dict[str, Any], words: str) -> None:
    settings = MoonshineConfig.from_pretrained(moonshine.folder).to_dict() | changes
    network = MoonshineForConditionalGeneration(MoonshineConfig.from_dict(settings)).eval()
    with pytest.raises(ModelError, match=f"model 'mine': {words}; set family = \"transformers\""):
        from_transformers(network, moonshine.extractor, moonshine.ours.tokenizer, name="mine", device="cpu")
    sound = torch.from_numpy(moonshine.waveforms[0])[None]
    assert network(sound, decoder_input_ids=torch.tensor([[1]])).logits.isfinite().all()  # transformers accepts it


def test_invalid_moonshine_parts_are_refused(moonshine: Pair, tmp_path: Path) -> None:
    config = MoonshineConfig.from_pretrained(moonshine.folder, encoder_num_key_value_heads=2)
    grouped = MoonshineForConditionalGeneration(config)
    with pytest.raises(ModelError, match=r"keys and values have 2 heads and its queries 4 .*transformers"):
        from_transformers(grouped, moonshine.extractor, moonshine.ours.tokenizer, name="mine", device="cpu")
    with pytest.raises(RuntimeError):  # transformers fails too
        grouped(torch.from_numpy(moonshine.waveforms[0])[None], decoder_input_ids=torch.tensor([[1]]))
    small = MoonshineForConditionalGeneration(MoonshineConfig.from_pretrained(moonshine.folder, vocab_size=100))
    with pytest.raises(ModelError, match=r"its tokenizer has 320 tokens, but its decoder 100"):
        from_transformers(small, moonshine.extractor, moonshine.ours.tokenizer, name="mine", device="cpu")
    unset = MoonshineForConditionalGeneration.from_pretrained(moonshine.folder)
    unset.generation_config.decoder_start_token_id = unset.generation_config.bos_token_id = None
    with pytest.raises(ModelError, match=r"no token that a transcript begins with; set decoder_start_token_id in"):
        from_transformers(unset, moonshine.extractor, moonshine.ours.tokenizer, name="mine", device="cpu")


def test_moonshine_follows_generation_config(moonshine: Pair) -> None:
    network = MoonshineForConditionalGeneration.from_pretrained(moonshine.folder).eval()
    network.generation_config.update(decoder_start_token_id=7, eos_token_id=211, suppress_tokens=[65, 25])
    loud = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    model = from_transformers(network, loud, moonshine.ours.tokenizer, name="mine", device="cpu")
    assert (model.prompt.rows(["fr"], model.device).tolist(), model.policy.end) == ([[7]], 211)
    assert model.digest != moonshine.ours.digest
    for waveform, result in zip(
        moonshine.waveforms, Adapter(model, "source").transcribe(moonshine.waveforms), strict=True
    ):
        inputs = loud(waveform, sampling_rate=16_000, return_tensors="pt")
        limit = model.max_tokens(len(waveform), "en")
        tokens = network.generate(**inputs, max_new_tokens=limit)[0, 1:]
        assert result.hypothesis == model.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_translation_model_is_refused(tmp_path: Path) -> None:
    folder = make_speech2text(tmp_path / "translates")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"lang_codes": "mustc", "tgt_lang": "de"}))
    with pytest.raises(ModelError, match=r"translates into de, es"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize(("precision", "before", "after"), [("float64", 1e-4, 1e-4), ("bf16", 0.05, 0.1)])
def test_precisions_agree(pair: Pair, precision: str, before: float, after: float) -> None:
    """The entropies agree before and after a step, to the given tolerances; in double precision, the step as well.

    Against single precision, double precision changes the entropies by at most 2e-7 and the step by at most 5e-6, while
    the step changes the entropies by at least 1e-3. In bf16, beam search finds other candidates in these random models,
    so the steps differ; the entropies differ by at most 0.04 before and 0.07 after.
    """
    other: SpeechModel = load_model(pair.folder, device="cpu", precision=precision)
    (one,), (same,) = (
        Adapter(model, "em-tok-b", steps=1, candidates=2).transcribe(pair.waveforms[:1]) for model in (pair.ours, other)
    )
    assert math.isclose(one.entropy_before, same.entropy_before, rel_tol=before)
    assert math.isclose(one.entropy_after, same.entropy_after, rel_tol=after)
    assert (one.updates, same.updates) == (1, 1)
    if precision == "float64":
        for name in ("loss", "gradient_norm"):
            assert getattr(one.trace[0], name) == pytest.approx(getattr(same.trace[0], name), rel=after)
