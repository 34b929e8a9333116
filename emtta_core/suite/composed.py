"""The methods of a suite: those that have a name of their own, and those that a suite composes."""

from dataclasses import fields, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_serializer, model_validator

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
from emtta_core.errors import UsageError
from emtta_core.identity import IDENTITY, Record
from emtta_core.names import check_name

Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Decay, Decay], BeforeValidator(lambda given: tuple(given) if type(given) is list else given)]
"""By which AdamW's means over the steps decay each step, the gradient's and its square's; an array in a file."""

BASE = "em-tok"
"""The method that a composed one is like where it names no other."""


class Adaptation(Record):
    """The options of the methods; a method's identity holds only those that it uses."""

    steps: Annotated[int, Field(ge=1, le=1000), IDENTITY] = 10  # updates an utterance, at most
    # Sequences an update (G), and to choose a hypothesis from.
    candidates: Annotated[int, Field(ge=2, le=1024), IDENTITY] = 8
    learning_rate: Annotated[float, Field(gt=0, lt=1), IDENTITY] = 1e-3  # of AdamW
    weight_decay: Annotated[float, Field(ge=0, le=1), IDENTITY] = 0.01  # of AdamW
    betas: Annotated[Betas, IDENTITY] = (0.9, 0.999)  # of AdamW
    epsilon: Annotated[float, Field(gt=0, lt=1), IDENTITY] = 1e-8  # of AdamW
    # Whether candidates are made anew in each step; else those of the first step are kept.
    redraw: Annotated[bool, IDENTITY] = True
    seed: Annotated[int, Field(ge=0, lt=2**63), IDENTITY] = 0  # from which each utterance's own random numbers derive
    # Nats per token by which an episode's entropy may move and be settled; none: it never ends early.
    early_stop: Annotated[float | None, Field(ge=0, allow_inf_nan=False), IDENTITY] = None


class OwnAdaptation(Record):
    """The options of one method that are not those of the suite."""

    steps: Annotated[int | None, Field(ge=1, le=1000), IDENTITY] = None
    candidates: Annotated[int | None, Field(ge=2, le=1024), IDENTITY] = None
    learning_rate: Annotated[float | None, Field(gt=0, lt=1), IDENTITY] = None
    weight_decay: Annotated[float | None, Field(ge=0, le=1), IDENTITY] = None
    betas: Annotated[Betas | None, IDENTITY] = None
    epsilon: Annotated[float | None, Field(gt=0, lt=1), IDENTITY] = None
    redraw: Annotated[bool | None, IDENTITY] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63), IDENTITY] = None
    early_stop: Annotated[float | None, Field(ge=0, allow_inf_nan=False), IDENTITY] = None


class MethodChoice(Record):
    """A method of a suite. In its file, the name alone stands for a method that has one."""

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
    adaptation: Annotated[OwnAdaptation | None, IDENTITY] = None  # options that are not those of the suite

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

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
        """Return the name of a method that has one, and what is given of one composed here."""
        given = {name: value for name, value in super().identity().items() if value is not None}
        return self.name if set(given) == {"name"} else given

    def method(self) -> Method:
        """Return the method."""
        if self.model_fields_set == {"name"}:
            return method(self.name)
        like = method(self.base or BASE)
        own = self._given("candidates", "parameters", "decision")
        objective = replace(like.objective, **self._given(*(field.name for field in fields(Objective))))
        return replace(like, name=self.name, objective=objective, summary=f"composed, like {like.name}", **own)

    def adapted(self, adaptation: Adaptation) -> Adaptation:
        """Return the options of the suite with those of the method in their place."""
        own = {} if self.adaptation is None else self.adaptation.model_dump(exclude_none=True)
        return adaptation.model_copy(update=own)

    def _unused(self, made: Method) -> list[str]:
        # Those of the fields and options that were given and that the method does not use.
        idle: tuple[str, ...] = ()
        if made.candidates == "none":
            idle = (*(field.name for field in fields(Objective)), "parameters")
        elif not made.objective.policy:
            idle = ("credit", "baseline")
        options = {} if self.adaptation is None else self.adaptation.model_dump(exclude_none=True)
        return [*self._given(*idle), *(f"adaptation.{name}" for name in options if name not in made.options)]

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
