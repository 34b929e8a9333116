"""Streams: adaptation carries over from each utterance to the next, until it is reset to the source model."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from emtta_core.audio.corruption import Graded
from emtta_core.identity import IDENTITY, Record

if TYPE_CHECKING:
    from emtta_core.suite.suite import Domain

Order = Literal["corpus", "shuffled", "gradual", "mixed"]
"""Domain by domain in the order of the suite and its corpora; with the utterances of each domain shuffled; with the
domains from the mildest to the most severe; or all utterances of all domains shuffled together."""

DETECT_AFTER = 100
"""Minimum utterances between two resets by `dynamic`, as published for Dynamic-SUTA (arXiv:2406.11064)."""

_RESET = re.compile(r"utterance|never|domain|every-(?P<every>[1-9][0-9]{0,8})|dynamic(-(?P<after>[1-9][0-9]{1,8}))?")


def _reset(value: str) -> str:
    if _RESET.fullmatch(value) is None:
        raise ValueError(
            f"reset is {value!r}; choose from: utterance, never, domain, every-N such as every-50 (N from 1), dynamic, "
            f"or dynamic-N such as dynamic-50 (N from 10, by default {DETECT_AFTER})"
        )
    return value


class Stream(Record):
    """How long adaptation is kept, and the order of utterances."""

    reset: Annotated[str, AfterValidator(_reset), IDENTITY] = "never"  # when to return to the source model
    order: Annotated[Order, IDENTITY] = "corpus"  # of the utterances
    seed: Annotated[int, Field(ge=0, lt=2**63), IDENTITY] = 0  # of the shuffling

    @model_validator(mode="after")
    def _check_fields(self) -> "Stream":
        if self.reset == "utterance" and self.order != "corpus":
            raise ValueError(f'with reset = "utterance" the order has no effect; remove order = {self.order!r}')
        if self.reset == "domain" and self.order in ("gradual", "mixed"):
            raise ValueError(
                f'with reset = "domain" each domain is a separate stream, so order = {self.order!r} has no meaning; '
                "choose corpus or shuffled, or reset never, every-N or dynamic"
            )
        if self.seed and self.order not in ("shuffled", "mixed"):
            raise ValueError(f"seed is {self.seed}, but order = {self.order!r} shuffles nothing; remove the seed")
        return self

    @property
    def crosses(self) -> bool:
        """Whether adaptation carries over from one domain to another; if not, each domain is a separate stream."""
        return self.reset == "never" or self.detects_after is not None or self.order in ("gradual", "mixed")

    @property
    def every(self) -> int | None:
        """The number of utterances after which it is reset; None if resets do not depend on their number."""
        match = _RESET.fullmatch(self.reset)
        return int(match["every"]) if match and match["every"] else None

    @property
    def detects_after(self) -> int | None:
        """The number of utterances after which a detected shift may reset it; None if shifts are not detected."""
        match = _RESET.fullmatch(self.reset)
        return int(match["after"] or DETECT_AFTER) if match and self.reset.startswith("dynamic") else None

    def arranged(self, domains: "Sequence[Domain]") -> "list[Domain]":
        """The domains in the order of the stream.

        Raises:
            ValueError: the order is by severity, but the domains' severities cannot be compared.
        """
        if self.order != "gradual":
            return list(domains)
        noisy = [domain for domain in domains if _severity(domain) is not None]
        graded = [domain for domain in noisy if isinstance(domain.corruption, Graded)]
        if graded and len(graded) < len(noisy):
            other = next(domain for domain in noisy if domain not in graded)
            raise ValueError(
                f'order = "gradual" sorts domains by severity, but {graded[0].name!r} has a severity '
                f"from 0 to 5 and {other.name!r} a signal-to-noise ratio; use the same for all of them, or "
                'write the domains in the desired order and choose order = "corpus"'
            )
        if not noisy:
            raise ValueError(
                'order = "gradual" sorts domains by severity, but none of '
                f"{', '.join(domain.name for domain in domains)} has a corruption; choose another order"
            )
        return sorted(domains, key=lambda domain: (_severity(domain) is not None, _severity(domain) or 0.0))


def _severity(domain: "Domain") -> float | None:
    # The severity of a domain's corruption, comparable within its kind; None for clean speech.
    corruption = domain.corruption
    if corruption is None or (isinstance(corruption, Graded) and not corruption.severity):
        return None
    return float(corruption.severity) if isinstance(corruption, Graded) else -corruption.snr_db
