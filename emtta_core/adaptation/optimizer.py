"""AdamW for a batch of episodes, and the state that a stream carries from one utterance to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emtta_core.adaptation.options import Options

if TYPE_CHECKING:
    from emtta_core.adaptation.episode import Batch
    from emtta_core.model.candidates import Hypotheses


@dataclass(slots=True)
class Carried:
    """The state of B streams, from which the next utterance of each starts."""

    parameters: Tensor  # `(B, P)`
    mean: Tensor  # `(B, P)`, AdamW's running mean of the gradient
    square: Tensor  # `(B, P)`, likewise of its square
    updates: Tensor  # `(B,)`, updates made since the source model

    @classmethod
    def begin(cls, source: Tensor) -> Carried:
        """Start at the source model, whose parameters are `source`, `(B, P)`."""
        zeros = torch.zeros_like(source)
        return cls(source, zeros, zeros.clone(), torch.zeros(len(source), device=source.device))

    @classmethod
    def stack(cls, parts: Sequence[Carried]) -> Carried:
        """Concatenate streams into new tensors."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def row(self, index: int) -> Carried:
        """One of the streams, `(1, P)`, copied into new tensors."""
        return Carried(*(getattr(self, field.name)[index : index + 1].clone() for field in fields(self)))

    def finite(self) -> list[bool]:
        """Whether each stream has only finite numbers."""
        parts = (self.parameters, self.mean, self.square)
        return torch.stack([part.isfinite().all(1) for part in parts]).all(0).tolist()


class Episodes:
    """The episodes still running, and one optimizer for all of them.

    Attributes:
        rows: `(b,)`, their utterances' indices in the batch.
        batch: these utterances.
        parameters: `(b, P)`.
        candidates: those of the last step; None before the first.
        source: the source's greedy hypotheses, if known before the first step.
    """

    def __init__(self, batch: Batch, parameters: Tensor, options: Options, carried: Carried | None = None):
        """Begin at `parameters`; in a stream, with the `carried` means and numbers of updates."""
        self.rows = torch.arange(len(batch.ids), device=parameters.device)
        self.batch = batch
        self.candidates: Hypotheses | None = None
        self.source: Hypotheses | None = None
        self._options, self._separate = options, carried is not None
        self._optimize(parameters)
        if carried is not None:
            moments = zip(self._optimized, carried.updates, carried.mean, carried.square, strict=True)
            for row, updates, mean, square in moments:
                state = {"step": updates.clone(), "exp_avg": mean.clone(), "exp_avg_sq": square.clone()}
                self._optimizer.state[row] = state

    def update(self, gradient: Tensor) -> None:
        """Apply AdamW's update."""
        for row, part in zip(self._optimized, gradient if self._separate else [gradient], strict=True):
            row.grad = part
        self._optimizer.step()

    def keep(self, indices: Tensor) -> None:
        """Continue with only these of the episodes, `(k,)`."""
        moments = [self._optimizer.state[row] for row in self._optimized]
        self.rows, self.batch = self.rows.index_select(0, indices), self.batch.keep(indices)
        self.candidates = None if self.candidates is None else self.candidates.keep(indices)
        self._optimize(self.parameters.detach().index_select(0, indices))
        if self._separate:
            for row, index in zip(self._optimized, indices.tolist(), strict=True):
                self._optimizer.state[row] = moments[index]
        else:
            self._optimizer.state[self.parameters] = {
                name: value.index_select(0, indices) if value.dim() else value for name, value in moments[0].items()
            }

    def save_to(self, carried: Carried) -> None:
        """Write the episodes' current state to `carried`."""
        states = [self._optimizer.state[row] for row in self._optimized]
        carried.parameters[self.rows] = self.parameters.detach()
        carried.mean[self.rows] = torch.stack([state["exp_avg"] for state in states])
        carried.square[self.rows] = torch.stack([state["exp_avg_sq"] for state in states])
        carried.updates[self.rows] = torch.stack([state["step"] for state in states])

    def _optimize(self, parameters: Tensor) -> None:
        options = self._options
        self.parameters = parameters.requires_grad_()
        # The streams of a batch have made different numbers of updates, which AdamW counts per tensor: each row is one.
        self._optimized = list(parameters.detach().unbind()) if self._separate else [parameters]
        self._optimizer = torch.optim.AdamW(
            [{"params": self._optimized}],  # in a group, which may be empty: the gate may exclude all episodes
            lr=options.learning_rate,
            betas=options.betas,
            eps=options.epsilon,
            weight_decay=options.weight_decay,
            fused=True,
        )
