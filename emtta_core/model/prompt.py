"""The tokens that every sequence begins with: what to do, in which language, and that no timestamps are wanted."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emtta_core.errors import ModelError, UsageError, unknown

MULTILINGUAL = 51_865
"""A Whisper that does not say so is multilingual with at least so many tokens; those of English alone have one less.
Source: `is_multilingual` in https://github.com/openai/whisper/blob/main/whisper/model.py."""

STANDS_FOR: Mapping[str, str] = {"yue": "zh"}
"""What a model is told in place of a language that it has no token for: Cantonese has one since Whisper's large-v3, and
was Chinese before. Source: https://github.com/openai/whisper/blob/main/whisper/tokenizer.py."""

_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A model's forced prompt in each language.

    Attributes:
        tokens: the prompt of each language; all of one length. An English-only Whisper has no token for language or
            task, and its one prompt stands under "en".
    """

    tokens: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, generation: Any, vocabulary: Mapping[str, int], *, multilingual: bool) -> "Prompt":
        """Take `<|startoftranscript|>`, language, `<|transcribe|>` and `<|notimestamps|>` from a Whisper.

        Args:
            generation: its generation config.
            vocabulary: ids by token, for what the config does not say, as those of older fine-tuned models.
            multilingual: whether it is, where the config says neither that nor its languages.

        Raises:
            ModelError: one of these tokens is in neither: the model was trained with them, and goes wrong without.
        """
        start = int(generation.decoder_start_token_id)
        silent = getattr(generation, "no_timestamps_token_id", None) or vocabulary.get("<|notimestamps|>")
        languages = getattr(generation, "lang_to_id", None)
        multilingual = getattr(generation, "is_multilingual", bool(languages) or multilingual)
        if multilingual and not languages:
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
        missing = [token for token, found in tokens.items() if not found]
        if missing:
            kind = "multilingual" if multilingual else "English"
            raise ModelError(
                f"the {kind} Whisper has no token for {' nor '.join(missing)}, "
                "neither in its generation_config.json nor in its tokenizer; copy generation_config.json, "
                "tokenizer.json and tokenizer_config.json from the model that it was fine-tuned from"
            )
        assert silent is not None
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
        """The codes of the languages that the model knows."""
        return tuple(sorted(self.tokens))

    @property
    def length(self) -> int:
        """Tokens in a prompt."""
        return len(next(iter(self.tokens.values())))

    def rows(self, languages: Sequence[str], device: torch.device) -> Tensor:
        """Return the prompts `(B, P)` of B utterances in `languages`; see `STANDS_FOR`.

        Raises:
            UsageError: for a language that the model does not know; it lists those that it does.
        """
        return torch.tensor([self._tokens_of(language) for language in languages], device=device)

    def common(self) -> tuple[int, ...]:
        """Return what the prompts of all languages begin with; the next token of each says its language.

        Raises:
            UsageError: there is one language alone, or it is told otherwise than by one token.
        """
        prompts = list(self.tokens.values())
        shared = next((place for place, tokens in enumerate(zip(*prompts, strict=True)) if len(set(tokens)) > 1), None)
        if shared is None:
            raise UsageError(
                f"this model knows the language {self.languages[0]!r} alone, so that there is none to detect; "
                "write language = 'corpus' in the suite's [model]"
            )
        if not shared or len({prompt[shared] for prompt in prompts}) < len(prompts):
            raise UsageError("this model has no token by which its languages are told; write language = 'corpus'")
        return prompts[0][:shared]

    def _tokens_of(self, language: str) -> tuple[int, ...]:
        """Return the prompt of a language, or of the one that stands for it.

        Raises:
            UsageError: the model knows neither.
        """
        told = language if language in self.tokens else STANDS_FOR.get(language, language)
        if told not in self.tokens:
            raise self._foreign(language)
        return self.tokens[told]

    def _foreign(self, language: str) -> UsageError:
        """Return the refusal of a language that the model does not know."""
        if len(self.tokens) > 1:
            return unknown("language", language, self.languages)
        return UsageError(
            f"unknown language {language!r}: this model knows {self.languages[0]!r} alone; take a multilingual one "
            "(of Whisper's those whose name does not end in '.en'), or leave such domains out"
        )
