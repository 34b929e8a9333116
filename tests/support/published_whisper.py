"""Miniature Whispers: the tokens, frames and layers of published checkpoints, and tiny widths.

The numbers are from the config.json, preprocessor_config.json and generation_config.json of the named models at
https://huggingface.co/openai and https://huggingface.co/distil-whisper; the weights are random.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)
from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTI
from transformers.models.whisper.tokenization_whisper import LANGUAGES

WIDTH = 4
"""The width of a head; the published models have 64."""

ENCODER_LAYERS, DECODER_LAYERS = 2, 4
"""The maximum numbers of layers, as they are all alike; fewer decoder layers are kept as published."""


@dataclass(frozen=True)
class Layout:
    """What distinguishes one published Whisper from another."""

    heads: int
    encoder_layers: int
    decoder_layers: int
    mel_bins: int = 80
    languages: int = 99
    english: bool = False


PUBLISHED = {
    "openai/whisper-tiny": Layout(6, 4, 4),
    "openai/whisper-tiny.en": Layout(6, 4, 4, english=True),
    "openai/whisper-base": Layout(8, 6, 6),
    "openai/whisper-small": Layout(12, 12, 12),
    "openai/whisper-medium": Layout(16, 24, 24),
    "openai/whisper-medium.en": Layout(16, 24, 24, english=True),
    "openai/whisper-large-v3": Layout(20, 32, 32, mel_bins=128, languages=100),
    "openai/whisper-large-v3-turbo": Layout(20, 32, 4, mel_bins=128, languages=100),
    "distil-whisper/distil-large-v3": Layout(20, 32, 2, mel_bins=128, languages=100),
    "distil-whisper/distil-small.en": Layout(12, 12, 4, english=True),
}


def make_published(folder: Path, name: str) -> Path:
    """Write the miniature of a published model to `folder` and return it."""
    layout = PUBLISHED[name]
    tokenizer = make_tokenizer(folder, layout)
    ids = tokenizer.convert_tokens_to_ids
    end, start = ids("<|endoftext|>"), ids("<|startoftranscript|>")
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=layout.mel_bins,
        d_model=WIDTH * layout.heads,
        encoder_layers=min(layout.encoder_layers, ENCODER_LAYERS),
        decoder_layers=min(layout.decoder_layers, DECODER_LAYERS),
        encoder_attention_heads=layout.heads,
        decoder_attention_heads=layout.heads,
        encoder_ffn_dim=4 * WIDTH * layout.heads,
        decoder_ffn_dim=4 * WIDTH * layout.heads,
        max_source_positions=1500,
        max_target_positions=448,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight.mul_(30.0)
        model.model.decoder.embed_positions.weight.mul_(60.0)
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("proj.weight"):
                parameter.mul_(4.0)
    speechless = NON_SPEECH_TOKENS if layout.english else NON_SPEECH_TOKENS_MULTI
    settings = {
        "decoder_start_token_id": start,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "is_multilingual": not layout.english,
        "no_timestamps_token_id": ids("<|notimestamps|>"),
        "return_timestamps": False,
        "suppress_tokens": [token for token in speechless if token < len(tokenizer)],
        "begin_suppress_tokens": [220, end],
        "max_length": 448,
    }
    if not layout.english:
        settings["lang_to_id"] = {f"<|{code}|>": ids(f"<|{code}|>") for code in codes(layout)}
        settings["task_to_id"] = {task: ids(f"<|{task}|>") for task in ("transcribe", "translate")}
    model.generation_config = GenerationConfig(**settings)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=layout.mel_bins).save_pretrained(folder)
    return folder


def codes(layout: Layout) -> list[str]:
    """The codes of the languages that a layout has tokens for, in the order of their ids."""
    return list(LANGUAGES)[: layout.languages]


def make_tokenizer(folder: Path, layout: Layout) -> WhisperTokenizerFast:
    """Save a tokenizer of the published size, with all special tokens at their published ids, to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    words = 50_256 if layout.english else 50_257
    vocabulary = _words(words)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizerFast(vocab=vocabulary, merges=[])
    specials = [
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in codes(layout)),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>" if layout.languages == 100 else "<|nocaptions|>",
        "<|notimestamps|>",
    ]
    tokenizer.add_special_tokens({"additional_special_tokens": specials})
    tokenizer.add_tokens([f"<|{index * 0.02:.2f}|>" for index in range(1501)])
    tokenizer.save_pretrained(folder)
    return tokenizer


@cache
def _words(count: int) -> dict[str, int]:
    """A vocabulary of `count` made-up words, the bytes first, followed by the end token."""
    letters = sorted(ByteLevel.alphabet())
    words = letters + [f"Ġw{index}" for index in range(count - len(letters))]
    return {word: index for index, word in enumerate([*words, "<|endoftext|>"])}
