"""Settle where a suite's corpora and recordings lie, so that what is prepared later is what was planned.

A run records the suite so: with the folders in which its corpora were found, and the commits of those on the hub.
"""

import logging
from functools import cache

from emtta_core.audio.noise_file import NoiseFile
from emtta_core.corpora.registry import Corpus
from emtta_core.errors import EmttaError
from emtta_core.suite import Domain, Suite

log = logging.getLogger("emtta.pipeline")


def locate(suite: Suite) -> Suite:
    """Return the suite with the place of each corpus and recording settled; one that cannot be had is left as it is."""
    find = cache(_located)
    return suite.model_copy(
        update={"domains": tuple(_settled(domain, find(domain.corpus)) for domain in suite.domains)}
    )


def _located(corpus: Corpus) -> Corpus:
    """Return a corpus with its place settled, where it can be had."""
    try:
        return corpus.located()
    except EmttaError as error:
        log.info("%s: %s", corpus.name, error)  # the plan says so again, by domain
        return corpus


def _settled(domain: Domain, corpus: Corpus) -> Domain:
    """Return a domain whose corpus, and recording of noise, lie where they were found."""
    corruption = domain.corruption
    if isinstance(corruption, NoiseFile):
        corruption = corruption.located()
    return domain.model_copy(update={"corpus": corpus, "corruption": corruption})
