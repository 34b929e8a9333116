"""Random Speech2Text checkpoints in the layout that `from_pretrained` reads."""

import io
import json
from pathlib import Path

import sentencepiece
import torch
from transformers import (
    Speech2TextConfig,
    Speech2TextFeatureExtractor,
    Speech2TextForConditionalGeneration,
    Speech2TextTokenizer,
)
from whisper_factory import SENTENCES

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def make_speech2text(
    folder: Path, *, seed: int = 0, mel_bins: int = 80, dither: float = 0.0, spread: float = 6.0
) -> Path:
    """Write a random Speech2Text with a window of 4 s to `folder` and return it."""
    tokenizer = make_tokenizer(folder)
    config = Speech2TextConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=48,
        conv_channels=40,
        max_source_positions=400,
        max_target_positions=96,
    )
    torch.manual_seed(seed)
    model = Speech2TextForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.endswith("proj.weight") or "fc" in name or "conv" in name:
                parameter.mul_(4.0)
            elif name.endswith("bias"):
                parameter.add_(0.05 * torch.randn_like(parameter))
        for layer in model.model.decoder.layers:
            for part in (layer.encoder_attn.q_proj, layer.encoder_attn.k_proj, layer.encoder_attn.out_proj):
                part.weight.mul_(4.0)
        embedding = model.model.decoder.embed_tokens.weight
        embedding.mul_(spread)
        embedding[config.pad_token_id] = spread * 0.02 * torch.randn(32)
        # The last LayerNorm leans towards the end token, so that it comes now and then.
        model.model.decoder.layer_norm.bias.add_(embedding[config.eos_token_id] / spread * 40)
    model.save_pretrained(folder)
    Speech2TextFeatureExtractor(feature_size=mel_bins, num_mel_bins=mel_bins, dither=dither).save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path, **options: object) -> Speech2TextTokenizer:
    """Train SentencePiece on a few sentences, and save a tokenizer with its model to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=content, vocab_size=80, model_type="bpe", minloglevel=2
    )
    (folder / "sentencepiece.bpe.model").write_bytes(content.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())
    named = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    names = [*SPECIAL, *(piece for piece in named if piece not in SPECIAL)]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    tokenizer = Speech2TextTokenizer(
        str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"), **{"do_lower_case": True, **options}
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
