"""Candidate sequences: greedy, sampled and the top beams, all from one token loop over one policy."""

from emtta_core.model.candidates.beam import BeamSearch
from emtta_core.model.candidates.greedy import Greedy
from emtta_core.model.candidates.loop import Frontier, Hypotheses, Strategy, generate
from emtta_core.model.candidates.sampled import Sampled

__all__ = ["BeamSearch", "Frontier", "Greedy", "Hypotheses", "Sampled", "Strategy", "generate"]
