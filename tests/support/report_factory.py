"""A run with known figures, for tests of pages."""

from collections.abc import Sequence

from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.store import CellKey, Store

ERRORS = {
    ("noise", "vacuum"): {"source": (2, 2, 1), "greedy-em": (2, 2, 2), "em-tok-b": (1, 1, 0)},
    ("noise", "babble"): {"source": (4, 4, 2), "greedy-em": (4, 3, 2), "em-tok-b": (4, 0, 1)},
    ("accent", "scotland"): {"source": (1, 0, 0), "greedy-em": (1, 0, 0), "em-tok-b": (1, 0, 2)},
}


def fill(
    store: Store,
    run_id: str = "run",
    *,
    methods: Sequence[str] = ("source", "greedy-em", "em-tok-b"),
    left_out: Sequence[tuple[str, str]] = (),
) -> None:
    """Write a run with `ERRORS`, without the cells (domain, method) in `left_out`."""
    begin_run(store, run_id, [(*where, method) for where in ERRORS for method in methods], utterances=3)
    for (group, domain), by_method in ERRORS.items():
        for method in methods:
            if (domain, method) not in left_out:
                key = CellKey(run_id, domain, method)
                states = zip(by_method["source"], by_method[method], strict=True)
                write_shard(
                    store,
                    key,
                    {f"u{i}": [with_errors(first), with_errors(last)] for i, (first, last) in enumerate(states)},
                )
                end_attempt(store, key, group=group)
