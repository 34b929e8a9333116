"""Random Whisper checkpoints in the layout that `from_pretrained` reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

LANGUAGES = ("en", "de", "fr")
SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "seven small boats sail slowly past the old harbour",
    "der kleine hund läuft über die straße",
    "une petite maison près de la rivière",
    "nobody knows where the yellow umbrella went yesterday",
)


def make_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    d_model: int = 32,
    heads: int = 2,
    encoder_layers: int = 2,
    decoder_layers: int = 2,
    ffn: int | None = None,
    mel_bins: int = 80,
    chunk_seconds: int = 4,
    hop_length: int = 256,
    multilingual: bool = True,
    suppress: bool = True,
    spread: float = 30.0,
    end_bias: float = 50.0,
    languages: Sequence[str] = LANGUAGES,
) -> Path:
    """Write a random Whisper to `folder` and return it.

    `spread` scales the output embedding, so that distributions are neither flat nor certain; `end_bias` is how
    much later positions favour the end token, so that most candidates end before their cap.
    """
    tokenizer = make_tokenizer(folder, multilingual=multilingual, languages=languages)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    frames = chunk_seconds * 16_000 // hop_length
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=mel_bins,
        d_model=d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn or 2 * d_model,
        decoder_ffn_dim=ffn or 2 * d_model,
        max_source_positions=frames // 2,
        max_target_positions=96,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    gain = (32 / d_model) ** 0.5  # the factors below suit a width of 32; sums grow with the width
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.endswith("proj.weight") or "fc" in name:
                parameter.mul_(4.0 * gain)
            elif "conv" in name and name.endswith("weight"):
                parameter.mul_(10.0 * gain)
            elif name.endswith("bias"):
                parameter.add_(0.05 * torch.randn_like(parameter))
        # Position and audio outweigh the last token; otherwise the tied embedding would repeat one token for ever.
        model.model.decoder.embed_positions.weight.mul_(120.0)
        for layer in model.model.decoder.layers:
            layer.encoder_attn.q_proj.weight.mul_(max(1.0, 4.0 * gain))
            layer.encoder_attn.k_proj.weight.mul_(max(1.0, 4.0 * gain))
            layer.encoder_attn.out_proj.weight.mul_(max(1.0, 4.0 * gain))
        embedding = model.model.decoder.embed_tokens.weight
        embedding[end] = 0.02 * torch.randn_like(embedding[end])  # the padding row is initialised to zero
        embedding.mul_(spread * gain)
        # Later positions lean more towards the end token.
        lean = embedding[end] / embedding[end].norm()
        positions = model.model.decoder.embed_positions.weight
        positions.add_(end_bias * torch.linspace(0, 1, len(positions)).unsqueeze(1) * lean)
    suppressed = [value for token, value in ids.items() if token != "<|endoftext|>"]
    settings = {
        "decoder_start_token_id": start,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "is_multilingual": multilingual,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "return_timestamps": False,
        "suppress_tokens": [*suppressed, 1, 7, 11, 40] if suppress else None,
        "begin_suppress_tokens": [tokenizer.convert_tokens_to_ids("Ġ"), end] if suppress else None,
        "max_length": 96,
    }
    if multilingual:
        settings["lang_to_id"] = {f"<|{code}|>": ids[f"<|{code}|>"] for code in languages}
        settings["task_to_id"] = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    model.generation_config = GenerationConfig(**settings)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(
        feature_size=mel_bins, hop_length=hop_length, chunk_length=chunk_seconds, sampling_rate=16_000
    ).save_pretrained(folder)
    return folder


def make_tokenizer(
    folder: Path, *, multilingual: bool = True, languages: Sequence[str] = LANGUAGES
) -> WhisperTokenizerFast:
    """Train a byte-level BPE tokenizer on `SENTENCES`, add Whisper's special tokens, and save it to `folder`."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=320, min_frequency=1)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save_model(str(folder))
    tokenizer = WhisperTokenizerFast.from_pretrained(folder)
    spoken = [f"<|{code}|>" for code in languages] if multilingual else []
    specials = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *spoken,
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
    ]
    tokenizer.add_special_tokens({"additional_special_tokens": specials})
    tokenizer.save_pretrained(folder)
    return tokenizer


def sounds(seconds: Sequence[float], *, seed: int = 0) -> list[NDArray[np.float32]]:
    """Waveforms of the given durations at 16 kHz, each a gliding tone in noise, no two alike."""
    rng = np.random.default_rng(seed)
    made = []
    for duration in seconds:
        time = np.arange(int(16_000 * duration)) / 16_000
        first, glide = rng.uniform(150, 2000), rng.uniform(-100, 300)
        tone = np.sin(2 * np.pi * (first * time + glide * time**2)) * (1 + np.sin(2 * np.pi * rng.uniform(1, 6) * time))
        made.append((0.1 * tone + 0.01 * rng.standard_normal(len(time))).astype(np.float32))
    return made
