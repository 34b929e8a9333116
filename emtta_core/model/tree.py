"""Candidates as a tree of their common beginnings, so that no beginning is computed twice.

The top beams of an utterance differ in few places, and samples of a confident model are often equal: all that the
decoder says of a position depends on the tokens before it alone, so one node stands for all candidates that share them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from emtta_core.model.forward import Nodes
from emtta_core.model.layout import Layout


@dataclass(frozen=True, slots=True)
class TokenTree:
    """The contexts in which the tokens of G candidates were chosen, each once.

    The nodes of an utterance are its P prompt tokens, then every distinct beginning of its candidates that a further
    token followed. A context is a node whose next token some candidate chose: all but the prompt's beginning.

    Attributes:
        nodes: the F nodes.
        visible: `(B, 1, N, N)`, 0 where the second node is the first or one before it in its sequence, -inf elsewhere;
            padding sees the prompt and is seen by none.
        contexts: `(C,)`, which of the nodes are contexts.
        first: `(C,)`, true for those that the first token after the prompt follows.
        owner: `(B, G, T)`, which of the contexts each token of each candidate was chosen in; 0 where masked.
    """

    nodes: Nodes
    visible: Tensor
    contexts: Tensor
    first: Tensor
    owner: Tensor


def grow(prompt: Tensor, candidates: Tensor, mask: Tensor, *, dtype: torch.dtype) -> TokenTree:
    """Return the tree of candidates.

    Args:
        prompt: `(B, P)`.
        candidates: `(B, G, T)`, the tokens after the prompt.
        mask: `(B, G, T)`, true up to and including a candidate's last token.
        dtype: of the visibility mask.
    """
    device = prompt.device
    batch, count, length = candidates.shape
    start = prompt.shape[1]
    # same[b, g, h, t]: candidates g and h agree before position t.
    agree = candidates.unsqueeze(2) == candidates.unsqueeze(1)
    same = torch.ones((batch, count, count, length), dtype=torch.bool, device=device)
    same[..., 1:] = agree[..., :-1].cummin(-1).values if length > 1 else same[..., 1:]
    same &= mask.unsqueeze(1)  # only a candidate that goes on at t can lend its node
    leader = same.to(torch.uint8).argmax(2)  # the first such, (B, G, T)
    leads = mask & (leader == torch.arange(count, device=device).view(1, -1, 1))
    leads[..., 0] = False  # position 0 is chosen after the prompt, whose last node stands for it
    # Nodes are numbered by position, then by candidate, after the prompt.
    by_time = leads.transpose(1, 2).reshape(batch, -1)
    number = (by_time.cumsum(1) - 1 + start).view(batch, length, count).transpose(1, 2)
    owner = number.gather(1, leader)
    owner[..., 0] = start - 1
    owner = owner.masked_fill(~mask, 0)
    counts = by_time.sum(1) + start
    sizes = counts.tolist()
    total = max(sizes)

    tokens = prompt.new_zeros((batch, total))
    positions = prompt.new_zeros((batch, total))
    tokens[:, :start] = prompt
    positions[:, :start] = torch.arange(start, device=device)
    utterance, candidate, time = leads.nonzero(as_tuple=True)
    node = number[utterance, candidate, time]
    tokens[utterance, node] = candidates[utterance, candidate, time - 1]
    positions[utterance, node] = time + (start - 1)

    # A node's ancestors: the owners of the earlier positions of the candidate that leads it.
    sees = torch.zeros((batch, total, total), dtype=torch.bool, device=device)
    sees[:, :start, :start] = torch.ones((start, start), dtype=torch.bool, device=device).tril()
    path = owner[utterance, candidate]  # (nodes, T)
    earlier = torch.arange(length, device=device) <= time.unsqueeze(1)
    path = torch.where(earlier, path, path[:, :1])
    sees[utterance.unsqueeze(1), node.unsqueeze(1), path] = True
    sees[:, start:, :start] = True
    visible = torch.zeros(sees.shape, dtype=dtype, device=device).masked_fill_(~sees, -torch.inf)

    exists = torch.zeros((batch, total), dtype=torch.bool, device=device)
    exists[:, :start] = True
    exists[utterance, node] = True
    contexts = exists.clone()
    contexts[:, : start - 1] = False
    packed = contexts[exists].nonzero().squeeze(1)
    among = (contexts.flatten().cumsum(0) - 1).view(batch, total)
    owner = among.gather(1, owner.flatten(1)).view_as(owner).masked_fill(~mask, 0)
    nodes = Nodes(tokens[exists], positions[exists], Layout.of(counts, sizes))
    return TokenTree(nodes, visible.unsqueeze(1), packed, nodes.positions[packed] == start - 1, owner)
