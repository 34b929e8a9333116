"""The engine's two references: the same method, as a careful user of transformers would write it.

- `plain`: one utterance at a time; `generate` with G returned sequences; a forward pass with the input repeated G
  times; `load_state_dict` to forget the utterance.
- `careful`: the same, but with one encoder pass for the loss, whose output is repeated for the decoder.

Both generate the candidates of `em-tok` (sampled) or `em-tok-b` (beams), and use the engine's `em_loss`. They run in
the engine's precision. In bf16, the weights of linear maps and convolutions are bfloat16, cast once, and LayerNorms,
positions and the optimizer's state are float32 under autocast: without the first, autocast would cast every frozen
weight at every token; without the second, small updates of LayerNorms would be lost.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

from emtta_core.adaptation.methods import Method
from emtta_core.adaptation.objective import em_loss
from emtta_core.adaptation.options import Options
from emtta_core.model import SpeechModel


class Reference:
    """Adapts a transformers Whisper to one utterance after another."""

    def __init__(self, model: SpeechModel, network: Any, method: Method, *, encode_once: bool):
        """Prepare the network to adapt.

        Args:
            model: the engine's model, for features, prompt, policy and precision.
            network: the `WhisperForConditionalGeneration` that it was made from; modified: all but its LayerNorms is
                frozen, and in bf16 cast.
            method: `em-tok` or `em-tok-b`.
            encode_once: false for `plain`, true for `careful`.
        """
        self.model, self.network, self.method, self.encode_once = model, network, method, encode_once
        self.narrow = model.precision.weights != model.precision.sums
        network.requires_grad_(False)
        network.generation_config.max_length = None  # otherwise transformers warns at every call
        if self.narrow:
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv1d):
                    module.to(model.precision.weights)
        self.norms = [
            parameter.requires_grad_() for name, parameter in network.named_parameters() if "layer_norm" in name
        ]

    def transcribe(
        self, waveforms: Sequence[NDArray[np.float32]], language: str, *, steps: int, candidates: int, rate: float
    ) -> list[str]:
        """Adapt to each utterance, and return its text."""
        with self.model.precision.arithmetic(self.model.device):
            source = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
            return [self._adapt(waveform, language, source, steps, candidates, rate) for waveform in waveforms]

    def _adapt(
        self,
        waveform: NDArray[np.float32],
        language: str,
        source: dict[str, Tensor],
        steps: int,
        candidates: int,
        rate: float,
    ) -> str:
        """Adapt to one utterance, and forget it."""
        mel = self.model.front_end.mel([waveform], device=self.model.device, dtype=self.model.dtype)
        limit = self.model.max_tokens(len(waveform), language)
        prompt = self.model.prompt.rows([language], self.model.device)
        self.generate(mel, prompt, limit)  # the source's hypothesis, which the engine decodes too
        optimizer = torch.optim.AdamW(self.norms, lr=rate, weight_decay=Options().weight_decay)
        try:
            for _ in range(steps):
                self.step(mel, prompt, limit, candidates, optimizer)
            final = self.generate(mel, prompt, limit)
        finally:  # also if memory runs out: the other reference adapts the same network
            self.network.load_state_dict(source)
        return str(self.model.tokenizer.decode(final[0].tolist(), skip_special_tokens=True)).strip()

    def generate(self, mel: Tensor, prompt: Tensor, limit: int, **arguments: Any) -> Tensor:
        """Return the tokens `(G, T)` after the prompt; greedy by default."""
        with torch.no_grad(), self.autocast():
            generated = GenerationMixin.generate(
                self.network, mel, decoder_input_ids=prompt, max_new_tokens=limit, **{"do_sample": False} | arguments
            )
        return generated[:, prompt.shape[1] :]

    def step(self, mel: Tensor, prompt: Tensor, limit: int, count: int, optimizer: torch.optim.Optimizer) -> None:
        """Make one update."""
        if self.method.candidates == "beam":
            tokens = self.generate(mel, prompt, limit, num_beams=count, num_return_sequences=count)
        else:
            arguments = {"do_sample": True, "top_k": 0, "num_return_sequences": count}
            tokens = self.generate(mel, prompt, limit, **arguments)
        ended = (tokens == self.model.policy.end).cumsum(1)
        mask = (ended == 0) | ((ended == 1) & (tokens == self.model.policy.end))
        inputs = torch.cat([prompt.expand(count, -1), tokens[:, :-1]], dim=1)
        with self.autocast():
            if self.encode_once:
                hidden = self.network.model.encoder(mel).last_hidden_state.expand(count, -1, -1)
                out = self.network(encoder_outputs=BaseModelOutput(hidden), decoder_input_ids=inputs)
            else:
                out = self.network(input_features=mel.expand(count, -1, -1), decoder_input_ids=inputs)
        logits = out.logits[:, prompt.shape[1] - 1 :].to(self.model.dtype)
        first = (torch.arange(logits.shape[1], device=logits.device) == 0).repeat(count)
        loss = em_loss(
            self.model.policy.mask_nodes(logits.flatten(0, 1), first).view_as(logits).unsqueeze(0),
            tokens.unsqueeze(0),
            mask.unsqueeze(0),
            estimator=self.method.objective.estimator,
            policy=self.method.objective.policy,
            entropy=self.method.objective.entropy,
        )
        optimizer.zero_grad()
        loss.total.sum().backward()
        optimizer.step()

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass; it has an effect only in bf16."""
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.narrow)
