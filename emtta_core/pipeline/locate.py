"""Settle where a suite's corpora, recordings and model lie, so that what is done later is what was planned.

A run records the suite so: with the folders in which its corpora were found, and the commits of what is on the hub.
"""

import logging
from functools import cache

from emtta_core.audio.noise_file import NoiseFile
from emtta_core.corpora.registry import Corpus
from emtta_core.errors import EmttaError, ModelError
from emtta_core.model import hub_model
from emtta_core.model.files import folder_of
from emtta_core.suite import Domain, ModelChoice, Suite

log = logging.getLogger("emtta.pipeline")


def locate(suite: Suite) -> Suite:
    """Return the suite with the place of each corpus and recording settled, and its model at the commit that is here.

    What cannot be had is left as it is.
    """
    find = cache(_located)
    return suite.model_copy(
        update={
            "domains": tuple(_settled(domain, find(domain.corpus)) for domain in suite.domains),
            "model": _pinned(suite.model),
        }
    )


def _pinned(choice: ModelChoice) -> ModelChoice:
    """Return the model at the commit that is on this machine; one that is not there, or is a folder, as it is."""
    try:
        if folder_of(choice.name) is not None:
            return choice
    except ModelError:  # whoever loads it says so
        return choice
    folder = hub_model.folder_of_commit(choice.name, choice.revision or hub_model.MAIN)
    return choice if folder is None else choice.model_copy(update={"revision": folder.name})


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
