-- robustness: the degradation of each method by each corruption, relative to clean speech (WERD, as in Speech Robust Bench).
-- columns:
--   domain, clean     the corrupted domain; the domain of the run with the same utterances, uncorrupted
--   method            the method
--   wer, clean_wer    word error rates of both domains, %
--   werd              WER degradation: wer - clean_wer, points
--   source_werd       werd of the method source
--   nwerd             werd / source_werd: 1 if the method degrades as much as the unadapted model, 0 if not at all
--   reason_hidden     why there is no figure
-- param run_id: the run; the newest by default
-- param method: only this method
-- of the whole store
WITH
chosen AS (
    SELECT * FROM domains WHERE run_id = getvariable('run_id')
),

-- A corpus is another's clean partner if the same speakers say the same texts under the same utterance ids.
corpora AS (
    SELECT
        corpus_id,
        md5(string_agg(concat_ws(chr(9), utterance_id, speaker, language, text), chr(10) ORDER BY utterance_id)) AS speech,
        count(corruption) > 0 AS corrupted
    FROM prepared
    WHERE corpus_id IN (SELECT corpus_id FROM chosen)
    GROUP BY corpus_id
),

partners AS (
    SELECT corrupted.corpus_id, arg_min(chosen.domain, chosen.position) AS clean
    FROM corpora AS corrupted
    LEFT JOIN corpora AS unharmed ON corrupted.speech = unharmed.speech AND NOT unharmed.corrupted
    LEFT JOIN chosen ON unharmed.corpus_id = chosen.corpus_id
    WHERE corrupted.corrupted
    GROUP BY corrupted.corpus_id
),

degraded AS (
    SELECT
        noisy.position,
        noisy.domain,
        partners.clean,
        noisy.method,
        CASE WHEN noisy.state = 'complete' THEN noisy.wer END AS wer,
        CASE WHEN beside.state = 'complete' THEN beside.wer END AS clean_wer,
        CASE
            WHEN partners.clean IS NULL THEN 'the run has no domain of the same utterances without a corruption'
            WHEN beside.domain IS NULL THEN partners.clean || ' is not evaluated with this method'
            WHEN noisy.state <> 'complete' THEN noisy.domain || ' is ' || noisy.state
            WHEN beside.state <> 'complete' THEN partners.clean || ' is ' || beside.state
            ELSE coalesce(noisy.reason_hidden, beside.reason_hidden)
        END AS reason_hidden
    FROM chosen AS noisy
    INNER JOIN partners USING (corpus_id)
    LEFT JOIN chosen AS beside ON partners.clean = beside.domain AND noisy.method = beside.method
),

compared AS (
    SELECT
        *,
        wer - clean_wer AS werd,
        max(wer - clean_wer) FILTER (method = 'source') OVER (PARTITION BY domain) AS source_werd
    FROM degraded
)

SELECT
    domain,
    clean,
    method,
    wer,
    clean_wer,
    werd,
    source_werd,
    werd / nullif(source_werd, 0) AS nwerd,
    reason_hidden
FROM compared
LEFT JOIN methods USING (method)
WHERE method = coalesce(getvariable('method'), method)
ORDER BY min(position) OVER (PARTITION BY domain), methods.rank NULLS LAST, method
