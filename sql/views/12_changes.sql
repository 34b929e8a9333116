-- changes: what adaptation did to each utterance, beside what the unadapted model heard.
-- grain: one row an utterance of a planned cell that has a score, and a score of the unadapted model; source left out.
--   run_id, "group", domain, method, cell_id, utterance_id   the utterance's row in utterances
--   language, speaker   of the utterance
--   words           words of the reference
--   source_errors   word errors of the unadapted model: of the state before the first update, or, where no states were
--                   kept, of the method source of the same run
--   errors          word errors of the adapted model
--   added           errors - source_errors: above 0 it got worse, below 0 better
--   reference, source_hypothesis, hypothesis   what was said, what the two models heard; not normalised
--   reference_normalised, hypothesis_normalised   the texts that errors is of
--   normaliser      by which they were normalised
--   entropy_before, entropy_after   mean nats a token along the greedy hypothesis
--   flags           what to know of it: truncated, collapsed
WITH
beside AS (
    SELECT
        *,
        -- A window and no join: a join would read the store once more.
        coalesce(
            step_errors[1],
            max(errors) FILTER (method = 'source') OVER (PARTITION BY run_id, domain, utterance_id)
        ) AS source_errors
    FROM utterances
)

SELECT
    run_id,
    "group",
    domain,
    method,
    cell_id,
    utterance_id,
    language,
    speaker,
    words,
    source_errors,
    errors,
    errors - source_errors AS added,
    reference,
    source_hypothesis,
    hypothesis,
    reference_normalised,
    hypothesis_normalised,
    normaliser,
    entropy_before,
    entropy_after,
    flags
FROM beside
WHERE method <> 'source' AND error IS NULL AND source_errors IS NOT NULL
