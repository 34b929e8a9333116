"""Streams: what is adapted goes from each utterance to the next, in an order, until it is reset to the source model."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from emtta_core.audio.corruption import Graded
from emtta_core.identity import IDENTITY, Record

if TYPE_CHECKING:
    from emtta_core.suite.suite import Domain

Order = Literal["corpus", "shuffled", "gradual", "mixed"]
"""Domain by domain, as the suite and its corpora have them; with the utterances of each domain shuffled; with the
domains from the mildest to the most severe; or all utterances of all domains shuffled into each other."""

DETECT_AFTER = 100
"""Utterances from a reset to the next one that `dynamic` may make, as published for Dynamic-SUTA (arXiv:2406.11064)."""

_RESET = re.compile(r"utterance|never|domain|every-(?P<every>[1-9][0-9]{0,8})|dynamic(-(?P<after>[1-9][0-9]{1,8}))?")


def _reset(value: str) -> str:
    if _RESET.fullmatch(value) is None:
        raise ValueError(
            f"reset is {value!r}; choose from: utterance, never, domain, every-N as every-50 (N from 1), dynamic, or "
            f"dynamic-N as dynamic-50 (N from 10, {DETECT_AFTER} where it is left out)"
        )
    return value


class Stream(Record):
    """How long what is adapted is kept, and in which order utterances come."""

    reset: Annotated[str, AfterValidator(_reset), IDENTITY] = "never"  # when the source model comes back
    order: Annotated[Order, IDENTITY] = "corpus"  # of the utterances
    seed: Annotated[int, Field(ge=0, lt=2**63), IDENTITY] = 0  # of what is shuffled

    @model_validator(mode="after")
    def _goes_together(self) -> "Stream":
        if self.reset == "utterance" and self.order != "corpus":
            raise ValueError(f'with reset = "utterance" no order changes a result; leave order = {self.order!r} out')
        if self.reset == "domain" and self.order in ("gradual", "mixed"):
            raise ValueError(
                f'with reset = "domain" each domain is a stream of its own, and order = {self.order!r} has no meaning; '
                "choose corpus or shuffled, or reset never, every-N or dynamic"
            )
        if self.seed and self.order not in ("shuffled", "mixed"):
            raise ValueError(f"seed is {self.seed}, and order = {self.order!r} shuffles nothing; leave the seed out")
        return self

    @property
    def crosses(self) -> bool:
        """Whether what is adapted goes from one domain to another; else each domain is a stream of its own."""
        return self.reset == "never" or self.detects_after is not None or self.order in ("gradual", "mixed")

    @property
    def every(self) -> int | None:
        """After how many utterances it is reset; None where it is not by their number."""
        match = _RESET.fullmatch(self.reset)
        return int(match["every"]) if match and match["every"] else None

    @property
    def detects_after(self) -> int | None:
        """After how many utterances a shift may reset it; None where it detects none."""
        match = _RESET.fullmatch(self.reset)
        return int(match["after"] or DETECT_AFTER) if match and self.reset.startswith("dynamic") else None

    def arranged(self, domains: "Sequence[Domain]") -> "list[Domain]":
        """The domains in the order in which the stream comes to them.

        Raises:
            ValueError: they are to come by severity, and have none that can be compared.
        """
        if self.order != "gradual":
            return list(domains)
        noisy = [domain for domain in domains if _severity(domain) is not None]
        graded = [domain for domain in noisy if isinstance(domain.corruption, Graded)]
        if graded and len(graded) < len(noisy):
            other = next(domain for domain in noisy if domain not in graded)
            raise ValueError(
                f'order = "gradual" sets domains in the order of their severity, and {graded[0].name!r} has a severity '
                f"from 0 to 5 where {other.name!r} has a signal-to-noise ratio; give all of them one of the two, or "
                'write the domains in the order wanted and choose order = "corpus"'
            )
        if not noisy:
            raise ValueError(
                'order = "gradual" sets domains in the order of their severity, and none of '
                f"{', '.join(domain.name for domain in domains)} has a corruption; choose another order"
            )
        return sorted(domains, key=lambda domain: (_severity(domain) is not None, _severity(domain) or 0.0))


def _severity(domain: "Domain") -> float | None:
    # How severe a domain's corruption is, among those of its kind; None for clean speech.
    corruption = domain.corruption
    if corruption is None or (isinstance(corruption, Graded) and not corruption.severity):
        return None
    return float(corruption.severity) if isinstance(corruption, Graded) else -corruption.snr_db
