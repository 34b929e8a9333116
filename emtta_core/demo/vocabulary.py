"""The demo model's tokenizer: a small byte-pair encoding with Whisper's special tokens."""

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import WhisperTokenizerFast

from emtta_core.corpora.grammar import load_grammar
from emtta_core.demo.voices import LANGUAGES

END = "<|endoftext|>"
START = "<|startoftranscript|>"
TASKS = ("<|translate|>", "<|transcribe|>")
OTHERS = ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")

_SENTENCES = 3_000
"""Sentences a language from which the byte pairs are counted."""


def train_tokenizer(size: int) -> WhisperTokenizerFast:
    """Return a tokenizer of `size` text tokens and, behind them, Whisper's special tokens in Whisper's order.

    The text tokens are learnt from training sentences of all the demo's languages, each with a space before it.
    """
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=[], show_progress=False)
    pairs.train_from_iterator(_sentences(), trainer)
    specials = [END, START, *(f"<|{language}|>" for language in LANGUAGES), *TASKS, *OTHERS]
    tokenizer = WhisperTokenizerFast(tokenizer_object=pairs, unk_token=END, bos_token=END, eos_token=END)
    tokenizer.add_special_tokens({"additional_special_tokens": specials[1:]})
    return tokenizer


def _sentences() -> list[str]:
    found = []
    for language in LANGUAGES:
        rng = random.Random(f"vocabulary|{language}")
        found += [" " + load_grammar(language).sentence(rng, "train") for _ in range(_SENTENCES)]
    return found
