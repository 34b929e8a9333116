-- worsened: the utterances that adaptation made worse, most added errors first, with both hypotheses.
-- columns:
--   method, domain, utterance_id   the utterance
--   seed            the seed, in a run whose methods have several
--   added           word errors that adaptation added
--   source_errors, errors, words   word errors of the unadapted and the adapted model; words of the reference
--   reference       the transcript
--   source_hypothesis, hypothesis  hypothesis of the unadapted and of the adapted model
--   flags           truncated, collapsed; gated, reverted: the hypothesis is the source's
-- optional seed
-- param run_id: the run; the newest by default
-- param method: only this method
-- param group: only this group
-- param domain: only this domain
-- param limit = 20 [number]: number of rows
SELECT
    method,
    domain,
    utterance_id,
    CASE
        WHEN (SELECT count(DISTINCT seed) > 1 FROM planned WHERE run_id = getvariable('run_id')) THEN seed
    END AS seed,
    added,
    source_errors,
    errors,
    words,
    reference,
    source_hypothesis,
    hypothesis,
    flags
FROM changes
WHERE
    run_id = getvariable('run_id')
    AND method = coalesce(getvariable('method'), method)
    AND "group" = coalesce(getvariable('group'), "group")
    AND domain = coalesce(getvariable('domain'), domain)
    AND added > 0
ORDER BY added DESC, errors DESC, domain, utterance_id, method, changes.seed
LIMIT getvariable('limit')::BIGINT
