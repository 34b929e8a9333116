-- edits: every word error, from the word alignment of reference and hypothesis.
-- grain: one row per error of a scored utterance; the row count equals the sum of utterances.errors.
-- The alignment is that of the scoring (jiwer) on the normalized texts, computed in each query by the function
-- word_edits. A plain DuckDB client does not have this function.
--   run_id, "group", domain, method, seed, utterance_id   the utterance's row in utterances
--   language     ISO 639-1 code
--   kind         substitution, deletion (the word is missing) or insertion (the word was added)
--   reference    the word in the reference; NULL for an insertion
--   hypothesis   the word in the hypothesis; NULL for a deletion
WITH
found AS (
    SELECT
        run_id,
        "group",
        domain,
        method,
        seed,
        utterance_id,
        language,
        unnest(word_edits(reference_normalized, hypothesis_normalized)) AS edit
    FROM utterances
    WHERE errors > 0
)

SELECT
    run_id,
    "group",
    domain,
    method,
    seed,
    utterance_id,
    language,
    edit.kind AS kind,
    edit.reference AS reference,
    edit.hypothesis AS hypothesis
FROM found
