"""What every report on a run must say beside its figures, because they are not made as one would expect."""

from emtta_core.store.catalogue import Catalogue

_OLD_RATIO = 'snr_convention = "msnsd-old"'
_RUN = (
    "SELECT suite_toml FROM raw.runs WHERE run_id = $run OR $run IS NULL ORDER BY created_at DESC, run_id DESC LIMIT 1"
)


def notice_of(catalogue: Catalogue, run_id: str | None) -> str | None:
    """Return what a report on a run must say; None where there is nothing, or no such run.

    Args:
        catalogue: of the store.
        run_id: the run; None for the newest.
    """
    rows = catalogue.query(_RUN, {"run": run_id}).rows
    return notice(str(rows[0][0])) if rows else None


def notice(suite_toml: str) -> str | None:
    """Return what a report on a run of a suite, as `Suite.to_toml` writes it, must say; None where that is nothing."""
    if _OLD_RATIO not in suite_toml:
        return None
    return (
        "noise is mixed by the SNR convention msnsd-old, the published mistake: 10 dB by name are 5 dB in truth; "
        "compare it with figures of that convention alone"
    )
