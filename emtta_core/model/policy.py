"""The decoding policy: the prompt, and the distribution that is sampled and searched and whose entropy is minimised."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from emtta_core.errors import ModelError, UsageError, unknown
from emtta_core.model.tokens import tokens_per_second

TOKENS_MARGIN = 12
"""Tokens allowed in addition to those for its duration, so that a short utterance is not cut."""

_NOT_APPLIED = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "guidance_scale", "length_penalty"), 1.0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "exponential_decay_length_penalty"), None),
}
"""Settings of a generation config that this policy does not support, with the values that disable them."""


@dataclass(frozen=True, slots=True)
class DecodingPolicy:
    """Which tokens may follow, and when a sequence ends."""

    end: int  # id of the end token
    bias: Tensor  # `(V,)`, added to every token's logits: -inf at suppressed tokens, else 0
    first_bias: Tensor  # `(V,)`, the same for the first token after the prompt, with the begin-suppressed tokens too
    max_target_positions: int  # the maximum number of tokens in the decoder, including the prompt
    # The maximum number of tokens of a sequence per second of audio, plus `TOKENS_MARGIN`; None: as the language needs.
    tokens_per_second: float | None = None

    @classmethod
    def of(cls, generation: Any, config: Any, *, device: torch.device, dtype: torch.dtype) -> "DecodingPolicy":
        """Read the rules of a generation config for a model with the given config.

        Raises:
            ModelError: it names a token that the model does not have, several end tokens or none, has an unsupported
                rule, or leaves no token to begin a transcript with.
        """
        for name, none in _NOT_APPLIED.items():
            value = getattr(generation, name, None)
            if value not in (None, none, [], {}):
                raise ModelError(
                    f"{name} in the generation config is {value!r}, which only transformers' own generation supports: "
                    'use it by setting family = "transformers" in the suite\'s [model], or remove the field from '
                    "generation_config.json"
                )
        ends = sorted(set(_tokens(generation, "eos_token_id", config.vocab_size)))
        if len(ends) != 1:
            raise ModelError(
                f"eos_token_id in the generation config names {len(ends)} tokens ({', '.join(map(str, ends))}), but "
                "the fast path supports exactly one; keep only that id in generation_config.json, or for several "
                'set family = "transformers" in the suite\'s [model]'
            )
        (end,) = ends
        bias = torch.zeros(config.vocab_size, dtype=dtype)
        bias[_tokens(generation, "suppress_tokens", config.vocab_size)] = -torch.inf
        first_bias = bias.clone()
        first_bias[_tokens(generation, "begin_suppress_tokens", config.vocab_size)] = -torch.inf
        if not (first_bias == 0).index_fill(0, torch.tensor([end]), value=False).any():
            raise ModelError(
                f"suppress_tokens and begin_suppress_tokens in the generation config leave none of the model's "
                f"{config.vocab_size} tokens to begin a transcript with, except the end token; shorten the lists in "
                "generation_config.json, as in that of the published model"
            )
        positions = getattr(config, "max_target_positions", None) or config.max_position_embeddings
        return cls(
            end=end,
            bias=bias.to(device),
            first_bias=first_bias.to(device),
            max_target_positions=int(positions),
        )

    @property
    def first_tokens(self) -> int:
        """How many tokens may begin a sequence."""
        return int((self.first_bias == 0).sum())

    def without(self, tokens: Sequence[int]) -> "DecodingPolicy":
        """A copy of the policy in which these tokens have probability zero as well."""
        bias, first_bias = self.bias.clone(), self.first_bias.clone()
        bias[list(tokens)] = first_bias[list(tokens)] = -torch.inf
        return replace(self, bias=bias, first_bias=first_bias)

    def mask_step(self, logits: Tensor, *, first: bool) -> Tensor:
        """The policy's logits for one position.

        Args:
            logits: `(..., V)`.
            first: whether it is the first after the prompt.
        """
        return logits + (self.first_bias if first else self.bias)

    def mask_nodes(self, logits: Tensor, first: Tensor) -> Tensor:
        """The policy's logits `(M, V)` for nodes; `first` `(M,)` is true for those directly after the prompt."""
        return torch.where(first.unsqueeze(1), self.first_bias, self.bias).add_(logits)

    def max_tokens(self, seconds: float, language: str, prompt_length: int) -> int:
        """The maximum number of tokens of a sequence, including the end token, for `seconds` in a language."""
        rate = tokens_per_second(language) if self.tokens_per_second is None else self.tokens_per_second
        count = math.ceil(rate * seconds) + TOKENS_MARGIN
        return max(1, min(count, self.max_target_positions - prompt_length))


def _tokens(generation: Any, setting: str, vocabulary: int) -> list[int]:
    # The tokens named by a setting of a generation config, each of which must be in the vocabulary.
    value = getattr(generation, setting)
    tokens = [value] if isinstance(value, int) else list(value or [])
    foreign = [token for token in tokens if not (isinstance(token, int) and 0 <= token < vocabulary)]
    if foreign:
        # -1 is an option of openai/whisper; transformers would interpret it as the last token
        hint = "-1 means the non-speech tokens only in openai/whisper; " if -1 in foreign else ""
        raise ModelError(
            f"{setting} in the generation config has {', '.join(map(repr, foreign[:3]))}, but the model's tokens are 0 "
            f"to {vocabulary - 1}; {hint}use ids in generation_config.json, as in that of the published model"
        )
    return tokens


MULTILINGUAL = 51_865
"""A Whisper whose config does not say is multilingual if it has at least this many tokens; English-only ones have one
fewer. Source: `is_multilingual` in https://github.com/openai/whisper/blob/main/whisper/model.py."""

SUBSTITUTES: Mapping[str, str] = {"yue": "zh"}
"""The language used for one that a model has no token for: Cantonese has one since Whisper's large-v3, and was Chinese
before. Source: https://github.com/openai/whisper/blob/main/whisper/tokenizer.py."""

ANY_LANGUAGE = ""
"""Stands for every language in a model whose prompt has no language."""

_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A model's forced prompt in each language."""

    # The prompt of each language, all of the same length. An English-only Whisper has no token for language or task,
    # and its only prompt is that of "en". A model whose prompt has no language has only that of `ANY_LANGUAGE`.
    tokens: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, generation: Any, vocabulary: Mapping[str, int], *, multilingual: bool) -> "Prompt":
        """Build the prompts of a Whisper: `<|startoftranscript|>`, language, `<|transcribe|>` and `<|notimestamps|>`.

        Args:
            generation: its generation config.
            vocabulary: ids by token, for what the config does not contain, as in older fine-tuned models.
            multilingual: whether it is, if the config states neither that nor its languages.

        Raises:
            ModelError: one of these tokens is in neither; the model was trained with them and fails without.
        """
        # 1) From the generation config, or the tokenizer: older fine-tuned models lack the mappings.
        start = int(generation.decoder_start_token_id)
        silent = getattr(generation, "no_timestamps_token_id", None) or vocabulary.get("<|notimestamps|>")
        languages = getattr(generation, "lang_to_id", None)
        multilingual = getattr(generation, "is_multilingual", bool(languages) or multilingual)
        if multilingual and not languages:
            # Language tokens are between the start token and the tasks; `<|nospeech|>` and the timestamps come later.
            end = vocabulary.get("<|translate|>", start)
            languages = {
                token: index
                for token, index in vocabulary.items()
                if start < index < end and _LANGUAGE.fullmatch(token)
            }
        tasks = getattr(generation, "task_to_id", None) or {}
        transcribe = tasks.get("transcribe") or vocabulary.get("<|transcribe|>")
        tokens = {"<|notimestamps|>": silent}
        if multilingual:
            tokens |= {"<|transcribe|>": transcribe, "a language, as <|en|>": languages}
        # 2) Without one of them the model would run but transcribe badly, so refuse it.
        missing = [token for token, found in tokens.items() if not found]
        if missing:
            kind = "multilingual" if multilingual else "English"
            raise ModelError(
                f"the {kind} Whisper has no token for {' nor '.join(missing)}, "
                "neither in its generation_config.json nor in its tokenizer; copy generation_config.json, "
                "tokenizer.json and tokenizer_config.json from the model that it was fine-tuned from"
            )
        assert silent is not None
        # 3) One prompt per language, all of the same length, so that a batch may mix languages.
        if not multilingual:
            return cls({"en": (start, int(silent))})
        assert transcribe is not None
        assert languages is not None
        return cls(
            {
                token.strip("<|>"): (start, int(index), int(transcribe), int(silent))
                for token, index in languages.items()
            }
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes of the languages in the prompts; () if the prompt has no language."""
        return tuple(sorted(language for language in self.tokens if language != ANY_LANGUAGE))

    @property
    def length(self) -> int:
        """The number of tokens in a prompt."""
        return len(next(iter(self.tokens.values())))

    def rows(self, languages: Sequence[str], device: torch.device) -> Tensor:
        """The prompts `(B, P)` of B utterances in `languages`; see `SUBSTITUTES`.

        Raises:
            UsageError: for a language that the model does not know; lists those that it does.
        """
        return torch.tensor([self._tokens_of(language) for language in languages], device=device)

    def common(self) -> tuple[int, ...]:
        """The common prefix of the prompts of all languages; the next token of each is its language.

        Raises:
            UsageError: the prompts have only one language or none, or differ in more than one token.
        """
        prompts = list(self.tokens.values())
        shared = next((index for index, tokens in enumerate(zip(*prompts, strict=True)) if len(set(tokens)) > 1), None)
        if shared is None:
            known = f"knows only the language {self.languages[0]!r}" if self.languages else "has no language tokens"
            raise UsageError(
                f"this model {known}, so there is none to detect; set language = 'corpus' in the suite's [model]"
            )
        if not shared or len({prompt[shared] for prompt in prompts}) < len(prompts):
            raise UsageError("this model does not have a token for each of its languages; set language = 'corpus'")
        return prompts[0][:shared]

    def _tokens_of(self, language: str) -> tuple[int, ...]:
        if ANY_LANGUAGE in self.tokens:
            return self.tokens[ANY_LANGUAGE]
        known = language if language in self.tokens else SUBSTITUTES.get(language, language)
        if known not in self.tokens:
            raise self._unknown_language(language)
        return self.tokens[known]

    def _unknown_language(self, language: str) -> UsageError:
        if len(self.tokens) > 1:
            return unknown("language", language, self.languages)
        return UsageError(
            f"unknown language {language!r}: this model knows only {self.languages[0]!r}; use a multilingual one "
            "(for Whisper, one whose name does not end in '.en'), or remove such domains"
        )
