-- worsened: the utterances that adaptation made worse, most added errors first, with both hypotheses.
-- columns:
--   method, domain, utterance_id   the utterance
--   added           word errors that adaptation added
--   source_errors, errors, words   word errors of the unadapted and the adapted model; words of the reference
--   reference       what was said
--   source_hypothesis, hypothesis  hypothesis of the unadapted and of the adapted model
--   flags           truncated, collapsed; gated, reverted: the hypothesis is the source's
-- param run_id: the run; the newest by default
-- param method: only this method
-- param group: only this group
-- param domain: only this domain
-- param limit = 20 [number]: number of rows
SELECT
    method,
    domain,
    utterance_id,
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
ORDER BY added DESC, errors DESC, domain, utterance_id, method
LIMIT getvariable('limit')::BIGINT
