"""Objectives of other papers, transferred from CTC models and classifiers to the tokens of an autoregressive decoder.

A frame or an image there is a token here, scored in the context of its candidate (teacher forcing). A decoder has no
blanks, which the papers on CTC models exclude. Each class documents what comes from which paper, and what differs
here; docs/method.md compares them. Their interface is that of plug-ins
(`emtta_core.adaptation.parts.LossFunction`).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from emtta_core.adaptation.mbr import edit_distances, units
from emtta_core.adaptation.objective import Loss, policy_loss, token_mean
from emtta_core.adaptation.scored import ScoredCandidates


@dataclass(frozen=True, slots=True)
class GeneralizedEntropy:
    """The Rényi entropy of the best beam, with negative sampling: SGEM (Kim et al., arXiv:2306.01981).

    From the paper: the loss is that of the most plausible beam that a search finds. It has two parts: the Rényi
    entropy of order a, (1 / (1 - a)) log Σ_v p_v^a, at a temperature; and negative sampling, -log(1 - Σ_{v ∈ N} p_v),
    where N are the classes whose probability, at temperature 1, is below 10 τ / V. The constants are those of the
    authors' code for CTC models (github.com/drumpt/SGEM, conf/config_sgem_ctc.yaml).
    Here: the search uses no external language model; LayerNorms are adapted, at a constant learning rate.
    """

    order: float = 1.5  # a
    temperature: float = 2.5
    negatives: float = 1.0  # the weight of negative sampling
    threshold: float = 0.04  # τ

    def __call__(self, candidates: ScoredCandidates) -> Tensor:
        """The loss of the first candidate of each utterance, `(B,)`."""
        best = candidates.first()
        return token_mean(best.each(self._token_loss), best.mask)

    def _token_loss(self, logits: Tensor) -> Tensor:
        warm = (logits / self.temperature).log_softmax(-1)
        entropy = (self.order * warm).logsumexp(-1) / (1 - self.order)
        negative = logits.softmax(-1) < 10 * self.threshold / logits.shape[-1]
        kept = warm.masked_fill(negative, -torch.inf).logsumexp(-1)  # log(1 - Σ_N p): the rest is never empty
        return entropy - self.negatives * kept


@dataclass(frozen=True, slots=True)
class EntropyAndConfusion:
    """Entropy and minimum class confusion at a temperature: SUTA (Lin et al., arXiv:2203.14222), and CEA's first stage.

    From SUTA: 0.3 times the mean entropy plus 0.7 times the class confusion of Jin et al. (arXiv:1912.03699), over the
    frames of one utterance, each weighted by 1 + exp(-H), at temperature 2.5.
    From CEA (Liu et al., arXiv:2310.09505), with `confident`: each entropy H is multiplied by 1 / (1 + exp(-H)); the
    gradient flows through this weight too, as in the authors' code (github.com/Waffle-Liu/CEA). CEA's second stage,
    which makes the features of neighbouring frames consistent, is left out.
    Here: both parts are over all tokens of the candidates; the classes are the tokens that the policy allows, thousands
    instead of 32 letters; only LayerNorms are adapted, whereas SUTA also adapts the feature extractor.
    """

    confident: bool = False
    weight: float = 0.3  # of the entropy; the rest is that of the confusion
    temperature: float = 2.5

    def __call__(self, candidates: ScoredCandidates) -> Tensor:
        """The loss of each utterance, `(B,)`."""
        warm = (candidates.logits / self.temperature).log_softmax(-1)
        probs = warm.exp()
        entropy = -(probs * warm).sum(-1)
        weighted = entropy * entropy.sigmoid() if self.confident else entropy
        mean = token_mean(weighted.masked_fill(~candidates.mask, 0.0), candidates.mask)
        return self.weight * mean + (1 - self.weight) * self._confusion(probs, entropy, candidates.mask)

    @staticmethod
    def _confusion(probs: Tensor, entropy: Tensor, mask: Tensor) -> Tensor:
        # The class correlation C = Pᵀ W P of tokens `(T, V)` is divided by its row sums, which are Pᵀ W 1 as P's rows
        # sum to 1; its off-diagonal sum over the number of classes is then 1 - mean_v (Σ_t w p²) / (Σ_t w p), so the V²
        # pairs of classes need not be computed.
        weight = (1 + torch.exp(-entropy.detach())).masked_fill(~mask, 0.0).unsqueeze(-1)
        total, square = ((weight * power).sum((1, 2)) for power in (probs, probs.square()))
        known = total > 0
        ratio = square / total.masked_fill(~known, 1.0)
        return 1 - ratio.sum(-1) / known.sum(-1)


@dataclass(frozen=True, slots=True)
class ReliableEntropy:
    """The entropy of reliable tokens, with sharpness-aware updates: SAR (Niu et al., arXiv:2302.12400).

    From the paper: images whose entropy is at least 0.4 ln C, for C classes, are left out; an update follows the
    gradient at θ + r g / |g|, where g is that at θ and r = 0.05 (sharpness-aware minimisation, arXiv:2010.01412).
    Here: tokens are left out instead, in each of the two passes by their entropy in that pass; |g| is that of one
    utterance; all LayerNorms are adapted, whereas the authors exclude those of the last blocks. Their recovery of a
    collapsed model is left out: each episode begins with the source model.
    """

    margin: float = 0.4
    sharpness: float = 0.05  # r

    def __call__(self, candidates: ScoredCandidates) -> Tensor:
        """The loss of each utterance, `(B,)`: zero where no token is reliable."""
        minimum = self.margin * math.log(candidates.contexts.shape[-1])
        reliable = candidates.mask & (candidates.entropies < minimum)
        return candidates.entropies.masked_fill(~reliable, 0.0).sum((1, 2)) / reliable.sum((1, 2)).clamp(min=1)


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """The cross entropy of candidates used as the transcript: pseudo-labelling.

    From Lee, "Pseudo-label: the simple and efficient semi-supervised learning method for deep neural networks", 2013:
    the most probable class is the label. Here: the greedy hypothesis is the label, token by token.
    """

    def __call__(self, candidates: ScoredCandidates) -> Tensor:
        """The loss of each utterance, `(B,)`."""
        return -token_mean(candidates.log_probs, candidates.mask)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A policy gradient whose reward is the agreement of samples: test-time reinforcement learning.

    From TTRL (Zuo et al., arXiv:2504.16084), and AQA-TTRL (Zhang et al., arXiv:2510.05478) for audio: the most frequent
    answer is the label; a sample's reward is 1 if it is that answer, else 0; its advantage is the reward less the mean
    over the samples, divided by their standard deviation (GRPO, arXiv:2402.03300).
    Here: answers are transcripts, compared without case and punctuation; ties go to the first. As long transcripts are
    seldom equal, `reward = "risk"` rewards a sample by minus its mean word errors against all samples, the expected
    risk of minimum Bayes risk. Each draw of samples is used for one update, so GRPO's clipping never takes effect;
    there is no penalty for moving away from the source model; AQA-TTRL's weighting by confidence and its repeated
    attempts are left out. The mean is over all tokens (DAPO, arXiv:2503.14476).
    """

    reward: Literal["vote", "risk"] = "vote"

    def __call__(self, candidates: ScoredCandidates) -> Loss:
        """The loss of each utterance, zero where its samples agree."""
        rewards = torch.tensor([self.rewards(texts) for texts in candidates.texts()], dtype=candidates.log_probs.dtype)
        spread = rewards.std(-1, correction=0, keepdim=True)
        scaled = (rewards - rewards.mean(-1, keepdim=True)) / spread.masked_fill(spread < 1e-6, 1.0)
        cost = -scaled.masked_fill(spread < 1e-6, 0.0).to(candidates.log_probs.device)
        advantage = cost.unsqueeze(-1).expand_as(candidates.log_probs).masked_fill(~candidates.mask, 0.0)
        loss = policy_loss(advantage, candidates.log_probs, candidates.mask, token_mean)
        return Loss(loss, policy=loss, advantage=advantage)

    def rewards(self, texts: list[str]) -> list[float]:
        """The reward of each of an utterance's samples."""
        sequences = [tuple(sequence) for sequence in units(texts)]
        if self.reward == "vote":
            label = max(sequences, key=sequences.count)
            return [float(one == label) for one in sequences]
        return [-float(risk) for risk in edit_distances(sequences).mean(1)]


SGEM = GeneralizedEntropy()
SUTA = EntropyAndConfusion()
CEA = EntropyAndConfusion(confident=True)
SAR = ReliableEntropy()
PSEUDO_LABEL = CrossEntropy()
VOTE_REWARD = Agreement("vote")
RISK_REWARD = Agreement("risk")
