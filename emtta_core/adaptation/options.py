"""The options of a method, each declared once: its range, and the methods whose results it can change.

This module needs neither torch nor pydantic; when a suite file is validated, pydantic reads the same declarations.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from numbers import Integral, Real
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from emtta_core.errors import UsageError, unknown

Trace = Literal["none", "metrics", "hypotheses"]
"""What is recorded of each state: nothing, the numbers of its update, or its greedy hypothesis too."""


class Use(Enum):
    """The methods that use an option; it is part of the identity of only their cells."""

    UPDATE = "methods that update the model"
    CANDIDATES = "methods that sample or search"
    SAMPLE = "methods that sample"
    SEARCH = "methods whose hypothesis a search finds"


_LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "above"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "below"),
}


class Within:
    """The range of a number, or of each number of a tuple, with limits named as in pydantic: ge, gt, le, lt."""

    def __init__(self, **limits: float) -> None:
        self.limits = limits

    def __contains__(self, value: Any) -> bool:
        return math.isfinite(value) and all(_LIMITS[name][0](value, limit) for name, limit in self.limits.items())

    def __str__(self) -> str:
        return " and ".join(f"{_LIMITS[name][1]} {limit}" for name, limit in self.limits.items())

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Add the range to pydantic's core schema, which is a dictionary."""
        schema = handler(source)
        for number in schema.get("items_schema", [schema.get("schema", schema)]):  # of a tuple, or of `float | None`
            number |= self.limits | ({"allow_inf_nan": False} if number["type"] == "float" else {})
        return schema


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a method.

    Raises:
        UsageError: a value has the wrong type or is out of range.
    """

    steps: Annotated[int, Within(ge=1, le=1000), Use.UPDATE] = 10  # S, maximum updates per utterance
    # G, sequences per update, and samples among which minimum Bayes risk chooses the hypothesis.
    candidates: Annotated[int, Within(ge=2, le=1024), Use.CANDIDATES] = 8
    learning_rate: Annotated[float, Within(gt=0), Use.UPDATE] = 1e-3  # of AdamW, like the next three
    # This and the next two are torch's defaults; the paper's suites set this to 0, as its authors' earlier code does.
    weight_decay: Annotated[float, Within(ge=0), Use.UPDATE] = 0.01
    # Decay rates of the running means of the gradient and of its square, per step.
    betas: Annotated[tuple[float, float], Within(ge=0, lt=1), Use.UPDATE] = (0.9, 0.999)
    epsilon: Annotated[float, Within(gt=0), Use.UPDATE] = 1e-8  # added to the root of the mean square
    # Whether candidates are drawn again in each step; if not, those of the first step are kept. From the second step on
    # they are then not drawn from the model being updated, and the policy gradient is no longer on-policy.
    redraw: Annotated[bool, Use.UPDATE] = True
    # Beams of the search whose best beam is the hypothesis.
    beams: Annotated[int, Within(ge=2, le=1024), Use.SEARCH] = 8
    seed: Annotated[int, Within(ge=0, lt=2**63), Use.SAMPLE] = 0  # each utterance's random numbers derive from it
    # Nats per token; an episode ends with the update of the first state whose candidates' mean entropy differs by at
    # most this from that of the state before. None: every episode runs all its steps.
    early_stop: Annotated[float | None, Within(ge=0), Use.UPDATE] = None
    # Nats per token; an utterance is adapted to only if the entropy along the source's greedy hypothesis is above this;
    # otherwise it keeps the source's hypothesis. None: every utterance is adapted to.
    adapt_above: Annotated[float | None, Within(ge=0), Use.UPDATE] = None
    # Whether an utterance reverts to the source's hypothesis if adapting raised the entropy along the greedy
    # hypothesis, or the adapted model's hypothesis is empty or a loop.
    revert: Annotated[bool, Use.UPDATE] = False

    def __post_init__(self) -> None:
        for name, (kind, within) in _DECLARED.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kind, within))

    def changed(self, **values: Any) -> "Options":
        """Return a copy with some values replaced.

        Raises:
            UsageError: there is no option of that name, or a value is out of range.
        """
        for name in values:
            if name not in USES:
                raise unknown("option", name, list(USES))
        return replace(self, **values)


def declarations(record: type) -> tuple[dict[str, tuple[Any, Within]], dict[str, Use]]:
    """The type and range of each field of an options class, and the methods that use it.

    Raises:
        TypeError: a field does not declare which methods use it, and so whose identity it is part of.
    """
    ranges, uses = {}, {}
    for name, hint in get_type_hints(record, include_extras=True).items():
        kind, *marks = get_args(hint) or (hint,)
        ranges[name] = kind, next((mark for mark in marks if isinstance(mark, Within)), Within())
        named = [mark for mark in marks if isinstance(mark, Use)]
        if len(named) != 1:
            raise TypeError(
                f"{record.__name__}.{name} must name the methods that use it by exactly one Use; it has {named}"
            )
        uses[name] = named[0]
    return ranges, uses


_DECLARED, USES = declarations(Options)
"""Each option's type and range; and the methods that use it."""


def _checked(name: str, value: Any, kind: Any, within: Within) -> Any:
    # The value of an option as a built-in type: computed options may be numpy's.
    if kind is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{name} is {value!r}; it must be True or False")
        return value
    if value is None and type(None) in get_args(kind):
        return None
    several = len(get_args(kind)) if get_origin(kind) is tuple else None
    items = value if several and isinstance(value, tuple | list) else (value,)
    abstract, plain, words = (Integral, int, "a whole number") if kind is int else (Real, float, "a number")
    valid = (isinstance(item, abstract) and not isinstance(item, bool) and item in within for item in items)
    if len(items) != (several or 1) or not all(valid):
        expected = f"{several} numbers, each" if several else f"{words},"
        raise UsageError(f"{name} is {value!r}; it must be {expected} {within}")
    return tuple(map(plain, items)) if several else plain(value)
