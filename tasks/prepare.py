"""The task that prepares a domain."""

from prefect import task

from emtta_core.pipeline.prepare import Prepared, prepare_domain
from emtta_core.pipeline.progress import DomainPrepared, channel
from emtta_core.store import Store
from emtta_core.suite import Domain
from tasks.options import UNCACHED


@task(name="prepare", task_run_name="prepare {domain.name}", **UNCACHED)
def prepare(domain: Domain, corpus_id: str, store: str, limit: int | None, retry_errors: bool) -> Prepared:
    """Prepare a domain, unless its audio is in the store.

    Args:
        domain: which.
        corpus_id: identity of its prepared audio.
        store: the store's location.
        limit: at most this many utterances.
        retry_errors: make audio anew that is there with utterances in error.
    """
    prepared = prepare_domain(domain, corpus_id, Store.open(store), limit, retry_errors=retry_errors)
    channel.publish(DomainPrepared(domain.name, prepared.corpus.utterances, prepared.reused, prepared.seconds))
    return prepared
