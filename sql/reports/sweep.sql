-- sweep: the settings of a sweep on one group of domains, and the best of them evaluated on the other groups.
-- A setting is chosen by its WER on one group, and on the other groups only the chosen one is shown, so that
-- nothing is tuned on the reported figures. Each group is used for choosing in turn.
-- columns:
--   sweep           the method that was swept
--   chosen_on       the group on which a setting is chosen; no choice is made until each setting is complete there
--   settings        the values of the options
--   group           the group of this row: for the group chosen on, a row per setting; for others, the chosen setting
--   wer             mean of the domains' WER, %, each the mean over the method's seeds
--   wer_low, wer_high   its 95% bootstrap interval, %; on the group chosen on, the lowest of several is biased low
--   change          WER minus that of source, over the utterances that both have, points
--   ci_half_width   half the width of its 95% interval, points: the interval is change ± ci_half_width
--   p               p-value of the two-sided test that the mean change is 0
--   is_chosen       whether this setting is the chosen one
--   method          the setting's name in other reports
--   reason_hidden   why there is no figure yet
-- cell wer: {wer:.2f} ({wer_low:.1f}–{wer_high:.1f})
-- cell change: {change:+.2f} ± {ci_half_width:.1f}
-- param run_id: the run; the newest by default
-- param group: only choices made on this group; all by default
WITH
swept AS (
    SELECT
        method,
        min(position) AS place,
        regexp_extract(method, '^(.+?)((?:\+[a-z_]+-(?:[0-9][0-9.e-]*|true|false))+)$', ['sweep', 'settings']) AS parts
    FROM planned
    WHERE run_id = getvariable('run_id')
    GROUP BY method
),

figures AS (
    SELECT
        swept.parts.sweep AS sweep,
        ltrim(regexp_replace(swept.parts.settings, '\+([a-z_]+)-', ', \1=', 'g'), ', ') AS settings,
        swept.place,
        groups.*
    FROM swept
    INNER JOIN groups ON swept.method = groups.method AND groups.run_id = getvariable('run_id')
    WHERE swept.parts.sweep <> '' AND groups."group" <> 'all'
),

choices AS (
    SELECT
        sweep,
        "group" AS chosen_on,
        min(position) AS turn,
        CASE WHEN count(*) = count(wer) THEN arg_min(method, (wer, place)) END AS chosen
    FROM figures
    GROUP BY sweep, "group"
)

SELECT
    figures.sweep,
    choices.chosen_on,
    figures.settings,
    figures."group",
    figures.wer,
    found.wer_low,
    found.wer_high,
    found.change,
    (found.change_high - found.change_low) / 2 AS ci_half_width,
    found.p,
    coalesce(figures.method = choices.chosen, false) AS is_chosen,
    figures.method,
    figures.reason_hidden
FROM choices
INNER JOIN figures
    ON
        choices.sweep = figures.sweep
        AND (choices.chosen_on = figures."group" OR choices.chosen = figures.method)
LEFT JOIN (
    SELECT * FROM statistics WHERE run_id = getvariable('run_id') AND domain IS NULL
) AS found ON figures.method = found.method AND figures."group" = found."group"
WHERE choices.chosen_on = coalesce(getvariable('group'), choices.chosen_on)
ORDER BY
    min(figures.place) OVER (PARTITION BY figures.sweep),
    choices.turn,
    figures."group" <> choices.chosen_on,
    min(figures.position) OVER (PARTITION BY figures."group"),
    figures.place
