"""Which cells a suite has, and the identity of each.

A corpus's identity covers all that can change its audio or its transcripts, a cell's all that can change its
hypotheses. Equal identities mean equal work, so that audio is prepared once and finished cells are not run again.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from emtta_core.adaptation import ALGORITHM_VERSION
from emtta_core.adaptation.methods import Method
from emtta_core.corpora.registry import Corpus
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.errors import UsageError
from emtta_core.identity import digest
from emtta_core.pipeline.cell import Cell
from emtta_core.scoring import normaliser_names
from emtta_core.suite import Domain, ModelChoice, Suite
from emtta_core.suite_method import Adaptation

PREPARE_VERSION = 1
"""Raised whenever the same corpus and corruption would be prepared as other samples or other rows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The cells of a suite, domain by domain; `plan_id` is the identity of all of them and of their scoring."""

    plan_id: str
    model_digest: str
    cells: tuple[Cell, ...]


def plan(suite: Suite, model_digest: str) -> Plan:
    """Return the cells of a suite for a model whose weights have this digest.

    Raises:
        UsageError: a corpus that cannot be read at all (no manifest, no utterance).
    """
    cells = []
    content = cache(content_digest)  # of this plan alone: a folder may be another one when it is next planned
    for domain in suite.domains:
        made_of, utterances = corpus_id(domain, suite.limit, content), count_utterances(domain, suite.limit)
        for choice in suite.methods:
            identity = cell_id(choice.method(), choice.adapted(suite.adaptation), suite.model, model_digest, made_of)
            cells.append(Cell(domain.name, domain.group, choice.name, identity, made_of, utterances))
    named = [[cell.domain, cell.group, cell.method, cell.cell_id] for cell in cells]
    return Plan(digest({"cells": named, "normalisers": normaliser_names()}), model_digest, tuple(cells))


def content_digest(corpus: Corpus) -> str:
    """Return the digest of what a corpus holds; of a folder, all of its audio is read for it."""
    return corpus.content_digest()


def corpus_id(domain: Domain, limit: int | None, content: Callable[[Corpus], str] = content_digest) -> str:
    """Return the identity of a domain's prepared audio: neither its name nor its group is part of it.

    Args:
        domain: which.
        limit: at most this many utterances, the first ones.
        content: gives the digest of a corpus; one that remembers spares reading a folder once a domain.
    """
    corruption = domain.corruption
    return digest(
        {
            "prepare_version": PREPARE_VERSION,
            "corpus": domain.corpus.identity(),
            "content": content(domain.corpus),
            "limit": limit,
            "corruption": None
            if corruption is None
            else corruption.made_of(lambda: content(Synthetic(language="en"))),  # who murmurs in babble
        }
    )


def cell_id(method: Method, adaptation: Adaptation, model: ModelChoice, model_digest: str, made_of: str) -> str:
    """Return the identity of a cell: of the options, only those that its method uses."""
    return digest(
        {
            "algorithm_version": ALGORITHM_VERSION,
            "model": model_digest,
            "precision": model.precision,
            "corpus": made_of,
            "method": method.identity(),
            "options": {option: getattr(adaptation, option) for option in method.options},
        }
    )


def count_utterances(domain: Domain, limit: int | None) -> int:
    """Return how many utterances a domain has; no audio is read for it."""
    count = sum(1 for _ in itertools.islice(domain.corpus.read_all(), limit))
    if not count:
        raise UsageError(f"the corpus of domain {domain.name!r} has no utterance; see its manifest, or leave it out")
    return count
