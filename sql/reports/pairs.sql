-- pairs: two runs side by side, utterance by utterance; `emtta compare` is computed from this.
-- columns:
--   method, group, domain, seed, utterance_id, speaker   an utterance of a cell that both runs have
--   words_a, words_b               words of the reference, in the baseline (a) and the run (b); NULL if not scored
--   errors_a, errors_b             word errors
--   added                          errors_b - errors_a
--   hypothesis_a, hypothesis_b     the hypothesis, not normalized
--   normalizer_a, normalizer_b     the normalizer used for scoring
--   error_a, error_b               why there is no score: what went wrong, or `not done`
-- param run_id: the run; the newest by default
-- param baseline: the run to compare with; by default the previous one of the same suite and model
-- of the whole store
WITH
shared AS (
    SELECT
        after.position,
        after."group",
        domain,
        method,
        after.seed,
        coalesce(after.seed, -1) AS joined_seed  -- equal where both are NULL
    FROM planned AS after
    INNER JOIN planned AS earlier USING (domain, method)
    WHERE
        after.seed IS NOT DISTINCT FROM earlier.seed
        AND after.run_id = getvariable('run_id')
        AND earlier.run_id = getvariable('baseline')
),

a AS (SELECT *, coalesce(seed, -1) AS joined_seed FROM utterances WHERE run_id = getvariable('baseline')),

b AS (SELECT *, coalesce(seed, -1) AS joined_seed FROM utterances WHERE run_id = getvariable('run_id'))

SELECT
    method,
    shared."group",
    domain,
    shared.seed,
    utterance_id,
    coalesce(b.speaker, a.speaker) AS speaker,
    a.words AS words_a,
    b.words AS words_b,
    a.errors AS errors_a,
    b.errors AS errors_b,
    b.errors - a.errors AS added,
    a.hypothesis AS hypothesis_a,
    b.hypothesis AS hypothesis_b,
    a.normalizer AS normalizer_a,
    b.normalizer AS normalizer_b,
    CASE WHEN a.run_id IS NULL THEN 'not done' ELSE a.error END AS error_a,
    CASE WHEN b.run_id IS NULL THEN 'not done' ELSE b.error END AS error_b
FROM a
FULL JOIN b USING (domain, method, joined_seed, utterance_id)
INNER JOIN shared USING (domain, method, joined_seed)
ORDER BY shared.position, domain, method, utterance_id
