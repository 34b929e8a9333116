-- domains: WER of each method on each domain, and how far each cell is.
-- columns:
--   group, domain, method   the cell
--   state                   complete, partial, failed or missing
--   planned, done, in_error utterances: planned, done, in error
--   words                   words of the references, utterances in error left out
--   wer, cer                word and character error rate, %
--   change_percent          change of wer relative to source, %
--   entropy_before, entropy_after   mean nats a token
--   withheld                why there is no figure, where the cell has its utterances
-- param run_id: the run; the newest by default
-- param group: one group alone
-- param method: one method alone
SELECT
    cells."group",
    cells.domain,
    cells.method,
    cells.state,
    cells.planned,
    cells.done,
    cells.in_error,
    cells.words,
    cells.wer,
    cells.cer,
    cells.change_percent,
    cells.entropy_before,
    cells.entropy_after,
    cells.withheld
FROM cells
LEFT JOIN methods USING (method)
WHERE
    cells.run_id = getvariable('run_id')
    AND cells."group" = coalesce(getvariable('group'), cells."group")
    AND cells.method = coalesce(getvariable('method'), cells.method)
ORDER BY
    min(cells.position) OVER (PARTITION BY cells.domain),
    methods.rank NULLS LAST,
    cells.method
