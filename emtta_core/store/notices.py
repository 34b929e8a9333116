"""What every report on a run must say beside its figures, because they do not mean what a reader would expect."""

import re

from emtta_core.scoring.normalizer import MARKED
from emtta_core.store.catalogue import Catalogue

_NOTICES = {
    re.compile(r'snr_convention = "msnsd-old"'): (
        "Noise is mixed by the SNR convention msnsd-old, the published mistake: 10 dB by name are 5 dB in truth; "
        "compare it with figures of that convention alone."
    ),
    re.compile(r'corpus = \{ name = "synthetic"'): (
        "The speech is synthetic: these figures say how the methods compare here, not how they do on real speech."
    ),
}
"""What must be said, by what of a suite's text calls for it."""

_CUT_WORDS = (
    "Whisper's basic normalizer removes vowel signs, and so cuts words of Hindi, Bengali, Thai and others into "
    'pieces: WER counts these, and neither WER nor CER sees the vowels; score them with normalizer = "marks".'
)

_CHOSEN = "FROM raw.runs WHERE run_id = $run OR $run IS NULL ORDER BY created_at DESC, run_id DESC LIMIT 1"
_RECORD = f"SELECT run_id, suite, model, created_at {_CHOSEN}"


_REUSED = """
    SELECT links.source_run, count(*) AS utterances
    FROM utterances
    INNER JOIN raw.links AS links USING (run_id, domain, method, cell_id, utterance_id)
    WHERE run_id = $run AND utterances.attempt = 0 AND links.source_run <> run_id
    GROUP BY links.source_run
    ORDER BY utterances DESC, links.source_run
"""

_SCORED = "SELECT DISTINCT language, normalizer FROM utterances WHERE run_id = $run AND error IS NULL"


def notices_of(catalogue: Catalogue, run_id: str | None) -> tuple[str, ...]:
    """Return the sentences that a report on a run must say; none where there is no such run.

    Args:
        catalogue: of the store.
        run_id: the run; None for the newest.
    """
    rows = catalogue.query(f"SELECT run_id, suite_toml {_CHOSEN}", {"run": run_id}).rows
    if not rows:
        return ()
    found, suite_toml = rows[0]
    scored = catalogue.query(_SCORED, {"run": found}).rows
    cut = any(language in MARKED and normalizer.startswith("whisper-basic") for language, normalizer in scored)
    told = [sentence for sign, sentence in _NOTICES.items() if sign.search(suite_toml)]
    if cut:
        told.append(_CUT_WORDS)
    reused = catalogue.query(_REUSED, {"run": found}).rows
    if reused:
        named = ", ".join(f"{count:,} of {run}" for run, count in reused)
        told.append(f"Results of other runs that did the same work are reused: {named} (utterances, per method).")
    return tuple(told)


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
