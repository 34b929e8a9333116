"""The methods of a suite: those that have a name of their own, and those that a suite composes."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import Field, model_serializer, model_validator, with_config
from typing_extensions import TypedDict

from emtta_core.adaptation.methods import (
    METHODS,
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

if TYPE_CHECKING:
    OwnOptions = dict[str, Any]
else:
    _hints = get_type_hints(Options, include_extras=True)
    del _hints["seed"]
    OwnOptions = with_config(extra="forbid")(TypedDict("OwnOptions", _hints, total=False))

"""The options of one method that are not those of the suite: all but the seed, each checked as in `Options`."""

BASE = "em-tok"
"""The method that a composed one is like where it names no other."""


def without_seed(adaptation: Any) -> Any:
    """The `adaptation` of a suite or of a method as it is given, its arrays as tuples.

    What a validator has seen counts as Python's, where an array is no tuple.

    Raises:
        ValueError: it has a seed, which belongs to the suite.
    """
    if isinstance(adaptation, dict):
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in adaptation.items()}
        seed = given.get("seed")
    else:
        given, seed = adaptation, getattr(adaptation, "seed", 0) or None
    if seed is not None:
        raise ValueError(f"adaptation.seed is {seed!r}; write seeds = [{seed}] at the head of the suite in its place")
    return given


class MethodChoice(Record):
    """A method of a suite. In its file, a name alone means the method of that name."""

    name: Annotated[str, Field(max_length=100), IDENTITY]  # of the method that there is, or of the one composed here
    base: Annotated[str | None, IDENTITY] = None  # the method that the composed one is like but for the fields below
    candidates: Annotated[Candidates | None, IDENTITY] = None  # where an update's candidates come from
    estimator: Annotated[Estimator | None, IDENTITY] = None  # how a candidate's cost is estimated
    policy: Annotated[bool | None, IDENTITY] = None  # whether the loss has the policy-gradient part
    entropy: Annotated[bool | None, IDENTITY] = None  # whether the loss has the entropy part
    credit: Annotated[Credit | None, IDENTITY] = None  # what part of the cost each token is charged with
    baseline: Annotated[Baseline | None, IDENTITY] = None  # what is subtracted from the cost
    normalization: Annotated[Normalization | None, IDENTITY] = None  # what the loss is a mean over
    parameters: Annotated[Parameters | None, IDENTITY] = None  # whose LayerNorms are adapted
    decision: Annotated[Decision | None, IDENTITY] = None  # how the hypothesis is found in the end
    adaptation: Annotated[OwnOptions | None, IDENTITY] = None  # options that are not those of the suite

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
        """Refuse a name or a base that there is not, a name that is taken, and a method that learns nothing.

        A field or an option that the method does not use is refused too: it would seem to be compared, and is not.
        """
        try:
            if self.model_fields_set == {"name"}:
                method(self.name)
                return self
            check_name("the method's name", self.name)
            if self.base is not None:
                method(self.base)
        except UsageError as error:
            raise ValueError(str(error)) from error
        if self.name.lower() in METHODS:
            raise ValueError(
                f"the name {self.name!r} is that of a method of emtta's own; give the one composed here another"
            )
        made = self.method()
        wants = made.objective.policy or (made.objective.entropy and made.objective.estimator == "token")
        if made.candidates != "none" and not wants:
            raise ValueError(
                f"{self.name!r} has no loss: set policy = true, or entropy = true with estimator = 'token'"
            )
        unused = self._unused(made)
        if unused:
            raise ValueError(f"{self.name!r} makes no use of {', '.join(unused)}: leave that out")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, serialise: Any) -> Any:
        return self.name if self.model_fields_set == {"name"} else serialise(self)

    def identity(self) -> Any:
        """The name of a method that has one; what is given of one composed here."""
        given = {name: value for name, value in super().identity().items() if value is not None}
        return self.name if set(given) == {"name"} else given

    def method(self) -> Method:
        """The method that is chosen or composed."""
        if self.model_fields_set == {"name"}:
            return method(self.name)
        like = method(self.base or BASE)
        own = self._given("candidates", "parameters", "decision")
        objective = replace(like.objective, **self._given(*(field.name for field in fields(Objective))))
        return replace(like, name=self.name, objective=objective, summary=f"composed, like {like.name}", **own)

    def adapted(self, options: Options) -> Options:
        """The options of the suite, overridden by those of the method."""
        return options.changed(**(self.adaptation or {}))

    def _unused(self, made: Method) -> list[str]:
        idle: tuple[str, ...] = ()
        if made.candidates == "none":
            idle = (*(field.name for field in fields(Objective)), "parameters")
        elif not made.objective.policy:
            idle = ("credit", "baseline")
        own = self.adaptation or {}
        return [*self._given(*idle), *(f"adaptation.{name}" for name in own if name not in made.options)]

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
