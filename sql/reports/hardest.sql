-- hardest: the utterances that adaptation made worse, those with most errors added first, with what both models heard.
-- columns:
--   method, domain, utterance_id   the utterance
--   added           word errors that adaptation added
--   source_errors, errors, words   word errors of the unadapted and of the adapted model; words of the reference
--   reference       what was said
--   source_hypothesis, hypothesis  what the unadapted and what the adapted model heard
--   flags           what to know of it: truncated, collapsed
-- param run_id: the run; the newest by default
-- param method: one method alone
-- param group: one group alone
-- param domain: one domain alone
-- param limit = 20 [number]: how many
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
