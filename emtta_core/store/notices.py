"""What every report on a run must say beside its figures, because they do not mean what a reader would expect."""

import re

from emtta_core.scoring.normaliser import MARKED
from emtta_core.store.catalogue import Catalogue

_NOTICES = {
    re.compile(r'snr_convention = "msnsd-old"'): (
        "Noise is mixed by the SNR convention msnsd-old, the published mistake: 10 dB by name are 5 dB in truth; "
        "compare it with figures of that convention alone."
    ),
    re.compile(r'corpus = \{ name = "synthetic"'): (
        "The speech is synthetic: these figures say how the methods compare here, not how they do on real speech."
    ),
    re.compile(rf'normaliser = "(whisper|basic)"[\s\S]*language = "({"|".join(sorted(MARKED))})["_-]'): (
        "Whisper's basic normaliser removes vowel signs, and so cuts words of Hindi, Bengali, Thai and others into "
        'pieces: WER counts these, and neither WER nor CER sees the vowels; score them with normaliser = "marks".'
    ),
}
"""What must be said, by what of a suite's text calls for it."""

_CHOSEN = "FROM raw.runs WHERE run_id = $run OR $run IS NULL ORDER BY created_at DESC, run_id DESC LIMIT 1"
_RECORD = f"SELECT run_id, suite, model, created_at {_CHOSEN}"


def notices_of(catalogue: Catalogue, run_id: str | None) -> tuple[str, ...]:
    """Return the sentences that a report on a run must say; none where there is no such run.

    Args:
        catalogue: of the store.
        run_id: the run; None for the newest.
    """
    rows = catalogue.query(f"SELECT suite_toml {_CHOSEN}", {"run": run_id}).rows
    return notices(str(rows[0][0])) if rows else ()


def notices(suite_toml: str) -> tuple[str, ...]:
    """Return the sentences that a report on a run of a suite, as `Suite.to_toml` writes it, must say."""
    return tuple(sentence for sign, sentence in _NOTICES.items() if sign.search(suite_toml))


def heading(catalogue: Catalogue, run_id: str | None) -> str:
    """Return the run, suite, model and date that a report on a run is headed with; the empty text without a run.

    Args:
        catalogue: of the store.
        run_id: the run; None for the newest.
    """
    rows = catalogue.query(_RECORD, {"run": run_id}).rows
    if not rows:
        return ""
    run, suite, model, created_at = rows[0]
    return f"run {run} (suite {suite}, model {model}, {created_at:%Y-%m-%d %H:%M} UTC)"
