"""The decoding policy: the one distribution that is sampled, searched, and whose entropy is minimised.

Temperature 1; the tokens that the model's generation config suppresses have probability zero, everywhere. What is
not here is not part of the distribution: no penalty for repetition, no timestamps rule (the prompt's
`<|notimestamps|>` token asks for none, as in transformers).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from emtta_core.errors import ModelError
from emtta_core.model.tokens import tokens_per_second

TOKENS_MARGIN = 12
"""Tokens allowed beyond those of its seconds, so that a short utterance is not cut."""


@dataclass(frozen=True, slots=True)
class DecodingPolicy:
    """Which tokens may follow, and when a sequence ends.

    Attributes:
        end: id of the end token.
        bias: `(V,)`, added to every token's logits: -inf at suppressed tokens, else 0.
        first_bias: `(V,)`, the same for the first token after the prompt, with the begin-suppressed tokens too.
        max_target_positions: the most tokens that the decoder can hold, the prompt included.
        tokens_per_second: the most tokens of a sequence a second of audio, `TOKENS_MARGIN` apart; None: what its
            language needs.
    """

    end: int
    bias: Tensor
    first_bias: Tensor
    max_target_positions: int
    tokens_per_second: float | None = None

    @classmethod
    def of(cls, generation: Any, config: Any, *, device: torch.device, dtype: torch.dtype) -> "DecodingPolicy":
        """Take the rules of a generation config, for a model with the given config.

        Raises:
            ModelError: it names a token that the model does not have, several end tokens or none, or leaves no token to
                begin a transcript with.
        """
        ends = sorted(set(_tokens(generation, "eos_token_id", config.vocab_size)))
        if len(ends) != 1:
            raise ModelError(
                f"eos_token_id in the generation config names {len(ends)} tokens ({', '.join(map(str, ends))}), and "
                "a transcript ends at one alone; write the id of that one into generation_config.json"
            )
        (end,) = ends
        bias = torch.zeros(config.vocab_size, dtype=dtype)
        bias[_tokens(generation, "suppress_tokens", config.vocab_size)] = -torch.inf
        first_bias = bias.clone()
        first_bias[_tokens(generation, "begin_suppress_tokens", config.vocab_size)] = -torch.inf
        if not (first_bias == 0).index_fill(0, torch.tensor([end]), value=False).any():
            raise ModelError(
                f"suppress_tokens and begin_suppress_tokens in the generation config leave none of the model's "
                f"{config.vocab_size} tokens to begin a transcript with, the end token apart; write shorter lists into "
                "generation_config.json, as that of the published model has them"
            )
        return cls(
            end=end,
            bias=bias.to(device),
            first_bias=first_bias.to(device),
            max_target_positions=int(config.max_target_positions),
        )

    @property
    def beginnings(self) -> int:
        """How many tokens may begin a sequence."""
        return int((self.first_bias == 0).sum())

    def without(self, tokens: Sequence[int]) -> "DecodingPolicy":
        """Return the policy in which these tokens have probability zero as well."""
        bias, first_bias = self.bias.clone(), self.first_bias.clone()
        bias[list(tokens)] = first_bias[list(tokens)] = -torch.inf
        return replace(self, bias=bias, first_bias=first_bias)

    def mask_step(self, logits: Tensor, *, first: bool) -> Tensor:
        """Return the policy's logits for one position, the first after the prompt or a later one.

        Args:
            logits: `(..., V)`.
            first: whether these follow the prompt at once.
        """
        return logits + (self.first_bias if first else self.bias)

    def mask_nodes(self, logits: Tensor, first: Tensor) -> Tensor:
        """Return the policy's logits `(M, V)` for nodes of which `first` `(M,)` follow the prompt at once."""
        return torch.where(first.unsqueeze(1), self.first_bias, self.bias).add_(logits)

    def max_tokens(self, seconds: float, language: str, prompt_length: int) -> int:
        """Return the most tokens of a sequence for an utterance of `seconds` in a language, the end token counted."""
        most = tokens_per_second(language) if self.tokens_per_second is None else self.tokens_per_second
        wanted = math.ceil(most * seconds) + TOKENS_MARGIN
        return max(1, min(wanted, self.max_target_positions - prompt_length))


def _tokens(generation: Any, setting: str, vocabulary: int) -> list[int]:
    """Return the tokens that a setting of a generation config names.

    Raises:
        ModelError: one is no token of a model that has so many.
    """
    value = getattr(generation, setting)
    tokens = [value] if isinstance(value, int) else list(value or [])
    foreign = [token for token in tokens if not (isinstance(token, int) and 0 <= token < vocabulary)]
    if foreign:
        # of openai/whisper's own options; transformers would take it for the last token
        hint = "-1 means the tokens that are no speech in openai/whisper alone; " if -1 in foreign else ""
        raise ModelError(
            f"{setting} in the generation config has {', '.join(map(repr, foreign[:3]))}, and the model's tokens are 0 "
            f"to {vocabulary - 1}; {hint}write ids into generation_config.json, as that of the published model has them"
        )
    return tokens
