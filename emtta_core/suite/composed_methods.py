"""The methods of a suite: existing ones given by name, and those that a suite composes."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, Field, model_serializer, model_validator, with_config
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from emtta_core.adaptation.methods import (
    METHODS,
    OBJECTIVES,
    Baseline,
    Candidates,
    Credit,
    Decision,
    Estimator,
    Method,
    Normalization,
    Objective,
    Parameters,
    method,
)
from emtta_core.adaptation.options import Options
from emtta_core.errors import UsageError
from emtta_core.identity import IDENTITY, Record
from emtta_core.names import check_name
from emtta_core.plugins import PATH
from emtta_core.suite.stream import Stream

if TYPE_CHECKING:
    OwnOptions = dict[str, Any]
    Sweep = dict[str, list[Any]]
else:
    _hints = get_type_hints(Options, include_extras=True)
    del _hints["seed"]
    OwnOptions = with_config(extra="forbid")(TypedDict("OwnOptions", _hints, total=False))
    _swept = {name: list[hint] for name, hint in _hints.items() if get_origin(get_args(hint)[0]) is not tuple}
    Sweep = with_config(extra="forbid")(TypedDict("Sweep", _swept, total=False))

"""The options that a method can override: all except the seed, each checked as in `Options`; and the values of each
option in a sweep, for all options that are not tuples."""

POINTS = 1000
"""The maximum number of methods in a sweep."""

BASE = "em-tok"
"""The default base of a composed method."""


def without_seed(adaptation: Any) -> Any:
    """The `adaptation` of a suite or of a method as given, with arrays as tuples.

    After a validator, pydantic treats the value as a Python object, in which a list is not accepted as a tuple.

    Raises:
        ValueError: it has a seed, which belongs to the suite.
    """
    if isinstance(adaptation, dict):
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in adaptation.items()}
        seed = given.get("seed")
    else:
        given, seed = adaptation, getattr(adaptation, "seed", 0) or None
    if seed is not None:
        raise ValueError(f"adaptation.seed is {seed!r}; set seeds = [{seed}] at the top of the suite instead")
    return given


def _one_of(names: Sequence[str]) -> AfterValidator:
    # A part of a method: a name, or a plug-in, which is imported when the suite is planned.
    def check(value: str) -> str:
        if value not in names and not PATH.fullmatch(value):
            allowed = "".join(f"{name!r}, " for name in names) + ("or " if names else "")
            message = "Input should be {allowed}a plug-in such as 'package.module:object'"
            raise PydanticCustomError("part", message, {"allowed": allowed})
        return value

    return AfterValidator(check)


CandidatesPart = Annotated[str, _one_of(get_args(Candidates))]
ObjectivePart = Annotated[str, _one_of(tuple(OBJECTIVES))]
ParametersPart = Annotated[str, _one_of(get_args(Parameters))]
DecisionPart = Annotated[str, _one_of(get_args(Decision))]
Plugin = Annotated[str, _one_of(())]


class MethodChoice(Record):
    """A method of a suite. In the file, a name alone means the existing method of that name."""

    name: Annotated[str, Field(max_length=100), IDENTITY]  # of an existing method, or of the one composed here
    base: Annotated[str | None, IDENTITY] = None  # the method that the composed one is based on
    adapter: Annotated[Plugin | None, IDENTITY] = None  # a plug-in that replaces all the parts
    candidates: Annotated[CandidatesPart | None, IDENTITY] = None  # where an update's candidates come from
    objective: Annotated[ObjectivePart | None, IDENTITY] = None  # the loss, instead of the paper's
    estimator: Annotated[Estimator | None, IDENTITY] = None  # how a candidate's cost is estimated
    policy: Annotated[bool | None, IDENTITY] = None  # whether the loss has the policy-gradient part
    entropy: Annotated[bool | None, IDENTITY] = None  # whether the loss has the entropy part
    credit: Annotated[Credit | None, IDENTITY] = None  # what part of the cost each token is charged with
    baseline: Annotated[Baseline | None, IDENTITY] = None  # what is subtracted from the cost
    normalization: Annotated[Normalization | None, IDENTITY] = None  # what the loss is averaged over
    parameters: Annotated[ParametersPart | None, IDENTITY] = None  # whose LayerNorms are adapted
    decision: Annotated[DecisionPart | None, IDENTITY] = None  # how the final hypothesis is found
    adaptation: Annotated[OwnOptions | None, IDENTITY] = None  # options that override the suite's
    stream: Annotated[Stream | None, IDENTITY] = None  # overrides the suite's stream
    sweep: Annotated[Sweep | None, IDENTITY] = None  # values of options; each combination is a method

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "adaptation" in value:
            return value | {"adaptation": without_seed(value["adaptation"])}
        return value

    @model_validator(mode="after")
    def _is_a_method(self) -> "MethodChoice":
        # Unused fields and options are refused too, as they would only seem to be compared.
        try:
            if self.model_fields_set == {"name"}:
                method(self.name)
                return self
            check_name("the method's name", self.name)
            if self.base is not None:
                method(self.base)
        except UsageError as error:
            raise ValueError(str(error)) from error
        if self.sweep is None and self.name.lower() in METHODS:
            raise ValueError(
                f"the name {self.name!r} is that of a built-in method; choose another for the one composed here"
            )
        composed = self.method()
        loss = composed.objective
        has_loss = not isinstance(loss, Objective) or loss.policy or (loss.entropy and loss.estimator == "token")
        if composed.candidates != "none" and not has_loss:
            raise ValueError(
                f"{self.name!r} has no loss: set policy = true, or entropy = true with estimator = 'token'"
            )
        unused = self._unused(composed)
        if unused:
            raise ValueError(f"{self.name!r} does not use {', '.join(unused)}: remove that")
        self._check_sweep()
        return self

    @model_serializer(mode="wrap")
    def _plain(self, serialise: Any) -> Any:
        return self.name if self.model_fields_set == {"name"} else serialise(self)

    def identity(self) -> Any:
        """The name of an existing method, or the given fields of a composed one."""
        given = {name: value for name, value in super().identity().items() if value is not None}
        return self.name if set(given) == {"name"} else given

    def method(self) -> Method:
        """The chosen or composed method."""
        if self.model_fields_set == {"name"}:
            return method(self.name)
        if self.adapter is not None:
            return Method(self.name, "none", adapter=self.adapter, summary=f"the plug-in {self.adapter}")
        base = method(self._base)
        own_parts = self._given_fields("candidates", "parameters", "decision")
        objective = base.objective if self.objective is None else self.objective
        if isinstance(objective, Objective):
            objective = replace(objective, **self._given_fields(*(field.name for field in fields(Objective))))
        return replace(base, name=self.name, objective=objective, summary=f"composed, like {base.name}", **own_parts)

    def points(self) -> "list[MethodChoice]":
        """The methods of a sweep, each named after its values; without a sweep, the method itself."""
        if self.sweep is None:
            return [self]
        given = {name: value for name, value in super().identity().items() if value is not None and name != "sweep"}
        if self.adapter is None:
            given["base"] = self._base
        points = []
        for values in product(*self.sweep.values()):
            own_options = dict(zip(self.sweep, values, strict=True))
            name = self.name + "".join(f"+{option}-{_written(value)}" for option, value in own_options.items())
            points.append(given | {"name": name, "adaptation": (self.adaptation or {}) | own_options})
        return [MethodChoice.model_validate(point) for point in points]

    @property
    def _base(self) -> str:
        # The method that it is based on: for a sweep with the name of a built-in method, that one.
        return self.base or (self.name if self.sweep is not None and self.name in METHODS else BASE)

    def _check_sweep(self) -> None:
        if self.sweep is None:
            return
        if not self.sweep or not all(self.sweep.values()):
            raise ValueError(
                f"the sweep of {self.name!r} has no values; set sweep = {{ steps = [5, 10] }}, for example, or omit it"
            )
        if math.prod(map(len, self.sweep.values())) > POINTS:
            raise ValueError(f"the sweep of {self.name!r} has more than {POINTS} methods; use fewer values")
        for option, values in self.sweep.items():
            if len({_written(value) for value in values}) < len(values):
                raise ValueError(f"the sweep of {self.name!r} has a value of {option} twice: {values}")
            if option in (self.adaptation or {}):
                raise ValueError(f"{self.name!r} has {option} both in adaptation and in its sweep; remove one of them")

    def adapted(self, options: Options) -> Options:
        """The options of the suite, overridden by those of the method."""
        return options.changed(**(self.adaptation or {}))

    def _unused(self, composed: Method) -> list[str]:
        idle: tuple[str, ...] = ()
        objective_fields = tuple(field.name for field in fields(Objective))
        if self.adapter is not None:
            idle = ("base", "candidates", "objective", *objective_fields, "parameters", "decision")
        elif composed.candidates == "none":
            idle = ("objective", *objective_fields, "parameters")
        elif not isinstance(composed.objective, Objective):
            idle = objective_fields
        elif not composed.objective.policy:
            idle = ("credit", "baseline")
        idle += () if composed.adapts else ("stream",)
        options = [f"{where}.{name}" for where in ("adaptation", "sweep") for name in getattr(self, where) or {}]
        return [
            *self._given_fields(*idle),
            *(name for name in options if name.partition(".")[2] not in composed.options),
        ]

    def _given_fields(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def _written(value: Any) -> str:
    # A value of an option as in the name of a method, which the report `sweep` parses.
    return str(value).lower().replace("e+", "e")
