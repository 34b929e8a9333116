"""Random models of kinds that the generic path supports, in the layout that `from_pretrained` reads."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GenerationConfig,
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    GlmAsrProcessor,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperFeatureExtractor,
)
from whisper_factory import SENTENCES, sounds

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_moonshine(folder: Path, **changes: Any) -> Path:
    """Write a random Moonshine, with rotary embeddings in a part of each head, to `folder` and return it."""
    tokenizer = make_tokenizer(folder, "<unk>", "<s>", "</s>")
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "encoder_num_hidden_layers": 2,
        "decoder_num_hidden_layers": 2,
        "encoder_num_attention_heads": 4,
        "decoder_num_attention_heads": 4,
        "partial_rotary_factor": 0.8,
        "pad_head_dim_to_multiple_of": 16,
        "max_position_embeddings": 96,
        "decoder_start_token_id": 1,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = MoonshineConfig(vocab_size=len(tokenizer), **(settings | changes))
    # Its output depends on positions and on the audio, and ends where its seventh token would otherwise be.
    strength = 4.0 * (32 / config.hidden_size) ** 0.5
    factors = dict.fromkeys(("embed_tokens", "fc", "_proj"), strength)
    network = _random(MoonshineForConditionalGeneration, config, factors)
    (sound,) = sounds([1.3], seed=4)
    token = network.generate(torch.from_numpy(sound)[None], max_new_tokens=7)[0, -1]
    embedding = network.get_input_embeddings().weight.data
    embedding[config.eos_token_id] = 1.05 * embedding[token]
    network.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)
    return folder


def make_qwen2_audio(folder: Path) -> Path:
    """Write a random Qwen2-Audio with a window of 4 s and two end tokens to `folder` and return it."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    tokenizer = make_tokenizer(folder, *special, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    audio = {
        "d_model": 32,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "num_mel_bins": 80,
        "max_source_positions": 200,
    }
    text = _text_config("qwen2", len(tokenizer))
    config = Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_id=3)
    generation = GenerationConfig(
        eos_token_id=[0, 2], pad_token_id=0, do_sample=True, top_k=20, top_p=0.5, repetition_penalty=1.1
    )
    _write(Qwen2AudioForConditionalGeneration, config, folder, generation)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=4)
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT).save_pretrained(folder)
    return folder


def make_glmasr(folder: Path) -> Path:
    """Write a random GLM-ASR, whose processor builds the request for a transcript, to `folder` and return it."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
    tokenizer = make_tokenizer(folder, *special, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    audio = {
        "model_type": "glmasr_encoder",
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 200,
        "num_mel_bins": 80,
    }
    text = _text_config("llama", len(tokenizer)) | {"eos_token_id": [0, 2]}
    config = GlmAsrConfig(audio_config=audio, text_config=text, audio_token_id=3)
    _write(GlmAsrForConditionalGeneration, config, folder, GenerationConfig(eos_token_id=[0, 2], pad_token_id=0))
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=4)
    chat = CHAT.replace("<|audio_bos|><|AUDIO|><|audio_eos|>", "<|pad|>")
    GlmAsrProcessor(extractor, tokenizer, chat_template=chat).save_pretrained(folder)
    return folder


def make_wav2vec2(folder: Path) -> Path:
    """Write a random wav2vec 2.0 with CTC to `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *sorted(set("".join(SENTENCES)) - {" "})]
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(letters)}))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    config = Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    _write(Wav2Vec2ForCTC, config, folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


KINDS: dict[str, Callable[[Path], Path]] = {
    "glmasr": make_glmasr,
    "moonshine": make_moonshine,
    "qwen2_audio": make_qwen2_audio,
    "wav2vec2": make_wav2vec2,
}
"""By kind, the function that writes one."""


def make_tokenizer(folder: Path, *special: str, **options: Any) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer whose first ids are `special`, and save it to `folder`."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=320, min_frequency=1, special_tokens=list(special))
    options = {"bos_token": special[1], "eos_token": special[2], **options}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, additional_special_tokens=list(special), **options
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _text_config(kind: str, vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }


def _write(kind: Any, config: Any, folder: Path, generation: GenerationConfig | None = None) -> None:
    network = _random(kind, config)
    if generation is not None:
        network.generation_config = generation
    network.save_pretrained(folder)


def _random(kind: Any, config: Any, factors: Mapping[str, float] = MappingProxyType({})) -> Any:
    # The weights are so large that distributions are neither flat nor certain, and that audio outweighs the last token.
    # `factors` multiplies those whose names contain its keys.
    torch.manual_seed(0)
    network = kind(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif parameter.dim() > 1:
                parameter.mul_(4.0 * math.prod(factor for key, factor in factors.items() if key in name))
    return network
