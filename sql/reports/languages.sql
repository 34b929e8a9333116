-- languages: the languages that the unadapted model detected for each spoken language, and the WER for each.
-- columns:
--   spoken         language of the corpus
--   detected       detected language
--   utterances     utterances with this detection, in one method
--   percent        percentage of the spoken language's utterances
--   probability    mean probability of the detected language
--   method         the method
--   errors, words  word errors and reference words of these utterances, over all seeds of the method
--   wer            100 × errors / words
-- param run_id: the run; the newest by default
-- param method: only this method
-- param group: only this group
-- param domain: only this domain
WITH
told AS (
    SELECT
        domain,
        method,
        cell_id,
        utterance_id,
        language AS detected,
        language_probability AS probability
    FROM windows
    WHERE
        run_id = getvariable('run_id')
        AND language_probability IS NOT NULL
        AND method = coalesce(getvariable('method'), method)
        AND "group" = coalesce(getvariable('group'), "group")
        AND domain = coalesce(getvariable('domain'), domain)
    -- Detected once per utterance, so all its windows agree.
    QUALIFY row_number() OVER (PARTITION BY domain, method, cell_id, utterance_id ORDER BY "window") = 1
)

SELECT
    utterances.language AS spoken,
    told.detected,
    count(DISTINCT (domain, utterance_id)) AS utterances,
    100.0 * count(*) / sum(count(*)) OVER (PARTITION BY utterances.language, told.method) AS percent,
    avg(told.probability) AS probability,
    told.method,
    sum(utterances.errors)::BIGINT AS errors,
    sum(utterances.words)::BIGINT AS words,
    100.0 * sum(utterances.errors) / nullif(sum(utterances.words), 0) AS wer
FROM told
INNER JOIN utterances USING (domain, method, cell_id, utterance_id)
LEFT JOIN methods USING (method)
WHERE utterances.run_id = getvariable('run_id')
GROUP BY utterances.language, told.detected, told.method, methods.rank
ORDER BY spoken, utterances DESC, detected, methods.rank NULLS LAST, told.method
