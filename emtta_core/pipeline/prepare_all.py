"""Prepare the audio of all domains of a suite, without any model."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

from emtta_core.errors import EmttaError, StoreError
from emtta_core.pipeline.locate import locate
from emtta_core.pipeline.plan import Audio, plan_audio
from emtta_core.pipeline.prepare import Prepared, prepare_domain
from emtta_core.store import Store
from emtta_core.suite import Domain, Suite

Listener = Callable[[str, Prepared | EmttaError], None]
"""Is told of each domain by its name: what was prepared, or why nothing was."""


def prepare_all(suite: Suite, store: Store, listener: Listener) -> dict[str, str]:
    """Prepare each domain of a suite, as many at once as its runtime says; one that fails costs no other.

    Args:
        suite: which.
        store: where to.
        listener: is told of each domain when it is done.

    Returns:
        Why a domain could not be prepared, or has no utterance that can be used, by its name.

    Raises:
        StoreError: the store cannot be written.
    """
    suite = locate(suite)
    audio = plan_audio(suite)

    def prepare(domain: Domain) -> Prepared | EmttaError:
        return _prepare(domain, audio[domain.name], store, suite.limit)

    failures = {}
    with ThreadPoolExecutor(suite.runtime.prepare_workers) as pool:
        futures = {pool.submit(prepare, domain): domain.name for domain in suite.domains}
        for future in as_completed(futures):
            name, found = futures[future], future.result()
            listener(name, found)
            if isinstance(found, EmttaError):
                failures[name] = str(found)
            elif found.corpus.errors == found.corpus.utterances:
                failures[name] = f"all {found.corpus.utterances} utterances are in error"
    return failures


def _prepare(domain: Domain, audio: Audio, store: Store, limit: int | None) -> Prepared | EmttaError:
    """Prepare a domain, or return why it cannot be; StoreError where the store is why."""
    if audio.error is not None:
        return audio.error
    try:
        return prepare_domain(domain, audio.corpus_id, store, limit)
    except StoreError:  # the others would meet the same
        raise
    except EmttaError as error:
        return error
