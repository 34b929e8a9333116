-- edits: each word that was misheard, from the alignment of reference and hypothesis by words.
-- grain: one row an error of an utterance that has a score; their number is the sum of utterances.errors.
-- The alignment is that of the scoring (jiwer), found anew in each question by the function word_edits; it is of the
-- normalised texts. A plain DuckDB client does not know the function.
--   run_id, "group", domain, method, utterance_id   the utterance's row in utterances
--   language     ISO 639-1 code
--   kind         substitution, deletion (nothing was heard for the word) or insertion (nothing was said)
--   reference    the word that was said; NULL for an insertion
--   hypothesis   the word that was heard; NULL for a deletion
WITH
found AS (
    SELECT
        run_id,
        "group",
        domain,
        method,
        utterance_id,
        language,
        unnest(word_edits(reference_normalised, hypothesis_normalised)) AS edit
    FROM utterances
    WHERE errors > 0
)

SELECT
    run_id,
    "group",
    domain,
    method,
    utterance_id,
    language,
    edit.kind AS kind,
    edit.reference AS reference,
    edit.hypothesis AS hypothesis
FROM found
