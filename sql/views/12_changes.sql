-- changes: the effect of adaptation on each utterance, against the unadapted model.
-- grain: one row per utterance of a planned cell with scores for the adapted and the unadapted model; source excluded.
--   run_id, "group", domain, method, seed, cell_id, utterance_id   the utterance's row in utterances
--   language, speaker   its language and speaker
--   words           words of the reference
--   source_errors   word errors of the unadapted model: in the state before the first update or, if no states were
--                   kept, with the method source of the same run
--   errors          word errors of the adapted model
--   added           errors - source_errors: above 0 is worse, below 0 is better
--   reference, source_hypothesis, hypothesis   the reference and both hypotheses, not normalized
--   reference_normalized, hypothesis_normalized   the texts that errors was computed from
--   scorer, normalizer   the scorer, and its normalizer
--   entropy_before, entropy_after   mean entropy along the greedy hypothesis, nats per token
--   flags           truncated, collapsed; gated, reverted: the hypothesis is the source's
WITH
with_source AS (
    SELECT
        *,
        -- A window instead of a join, because a join would read the store again.
        coalesce(
            step_substitutions[1] + step_deletions[1] + step_insertions[1],
            max(errors) FILTER (method = 'source') OVER (PARTITION BY run_id, domain, utterance_id)
        ) AS source_errors
    FROM utterances
)

SELECT
    run_id,
    "group",
    domain,
    method,
    seed,
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
    reference_normalized,
    hypothesis_normalized,
    scorer,
    normalizer,
    entropy_before,
    entropy_after,
    flags
FROM with_source
WHERE method <> 'source' AND error IS NULL AND source_errors IS NOT NULL
