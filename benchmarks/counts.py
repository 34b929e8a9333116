"""Check that scoring a run again gives the same scores, and that another program counts the same errors.

    python benchmarks/counts.py STORE RUN

scores each hypothesis of a run, and that of each step, again with its scorer, and compares every column with the
store's. It also counts the errors of the stored normalized texts with kaldialign. It prints the number of compared
rows, and each row that differs.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import kaldialign

from emtta_core.scoring.wer import Transcription, score
from emtta_core.store import Catalogue, Store

ROWS = """
    WITH decoded AS (
        SELECT run_id, domain, method, cell_id, attempt, utterance_id, list(hypothesis ORDER BY step) AS texts
        FROM raw.steps
        WHERE run_id = $run
        GROUP BY ALL
    )
    SELECT heard.language, heard.reference, heard.hypothesis, coalesce(decoded.texts, []) AS texts, scores.*
    FROM raw.scores AS scores
    INNER JOIN raw.hypotheses AS heard USING (run_id, domain, method, cell_id, attempt, utterance_id)
    LEFT JOIN decoded USING (run_id, domain, method, cell_id, attempt, utterance_id)
    WHERE run_id = $run AND heard.error IS NULL
"""


def rescored(row: Mapping[str, Any]) -> dict[str, Any]:
    """Score a row's hypothesis again."""
    transcription = Transcription(
        row["utterance_id"], row["language"], row["reference"], row["hypothesis"], row["texts"]
    )
    columns = score(transcription, transcription.steps, row["scorer"], strict=True)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in columns.items()}


def by_kaldialign(row: Mapping[str, Any]) -> dict[str, int]:
    """Count the errors in a row's normalized texts with kaldialign."""
    found = kaldialign.edit_distance(row["reference_normalized"].split(), row["hypothesis_normalized"].split())
    return {"errors": found["total"]}


def main() -> None:
    """Compare, and exit with 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("run")
    options = parser.parse_args()
    with Catalogue(Store.open(options.store), runs=[options.run]) as catalogue:
        rows = catalogue.query(ROWS, {"run": options.run}).records
    differing = {"scored again": 0, "kaldialign": 0}
    for row in rows:
        stored = row | {"errors": row["substitutions"] + row["deletions"] + row["insertions"]}
        for name, recounted in (("scored again", rescored(row)), ("kaldialign", by_kaldialign(row))):
            wrong = {column: (stored[column], value) for column, value in recounted.items() if stored[column] != value}
            if wrong:
                differing[name] += 1
                print(f"{name}: {row['domain']}/{row['method']}/{row['utterance_id']}: {wrong}")
    print(json.dumps({"rows": len(rows), "differing": differing}))
    sys.exit(any(differing.values()))


if __name__ == "__main__":
    main()
