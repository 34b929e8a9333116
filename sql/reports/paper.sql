-- paper: WER of the run next to the published figures of the paper, group by group.
-- columns:
--   suite, group    the paper's suite; the run's group. A group belongs to a suite of the paper if all of its domains use
--                   that suite's corpus (for LS-C with noise), or if it is a group of the shipped suite demo, which
--                   imitates the paper's domains with synthetic speech; other rows are separate
--   method          the method
--   wer             the run's mean over the group's domains, %; empty while hidden
--   paper_wer       the paper's, with Whisper-base, %
--   change_percent  the run's change relative to source, %
--   paper_change_percent   the paper's change relative to source, %
--   domains, paper_domains number of domains in each mean
-- Both use the same methods. If the speech or the model differs from the paper's, compare the changes and the
-- ranking of the methods, not the rates.
-- param run_id: the run; the newest by default
WITH
-- Each domain of the suite, as the run recorded it: its group, its corpus, and whether there is a corruption.
domains AS (
    SELECT
        suite AS run_suite,
        unnest(regexp_extract_all(suite_toml, 'group = "([^"]*)", corpus = \{', 1)) AS "group",
        unnest(regexp_extract_all(suite_toml, 'group = "[^"]*", corpus = \{.*?[{ ]name = "([^"]*)"', 1)) AS corpus,
        unnest(
            regexp_extract_all(suite_toml, 'group = "[^"]*", corpus = \{[^{}]*\}(, corruption = )?', 1)
        ) <> '' AS corrupted
    FROM runs
    WHERE run_id = getvariable('run_id')
),

named AS (
    SELECT published.suite, domains."group"
    FROM domains
    CROSS JOIN (SELECT DISTINCT suite, "group", corpus FROM paper) AS published
    GROUP BY published.suite, published."group", domains."group"
    HAVING
        bool_and(domains.corpus = published.corpus AND (published.suite <> 'LS-C' OR domains.corrupted))
        OR (bool_and(domains.run_suite = 'demo') AND published."group" = domains."group")
),

ours AS (
    SELECT
        groups."group",
        named.suite,
        groups.position,
        groups.method,
        groups.domains,
        groups.wer,
        groups.change_percent
    FROM groups
    LEFT JOIN named USING ("group")
    WHERE groups.run_id = getvariable('run_id') AND groups."group" <> 'all'
),

published AS (
    SELECT
        suite,
        method,
        domains,
        wer,
        100.0 * (wer / max(wer) FILTER (method = 'source') OVER (PARTITION BY suite) - 1) AS change_percent
    FROM paper
    WHERE getvariable('run_id') IS NOT NULL
),

compared AS (
    SELECT
        suite,
        method,
        coalesce(ours."group", max(ours."group") OVER (PARTITION BY suite)) AS "group",
        ours.position,
        ours.wer,
        published.wer AS paper_wer,
        ours.change_percent,
        published.change_percent AS paper_change_percent,
        ours.domains,
        published.domains AS paper_domains
    FROM ours
    FULL JOIN published USING (suite, method)
)

SELECT
    compared.suite,
    compared."group",
    compared.method,
    compared.wer,
    compared.paper_wer,
    compared.change_percent,
    compared.paper_change_percent,
    compared.domains,
    compared.paper_domains
FROM compared
LEFT JOIN methods USING (method)
ORDER BY
    min(compared.position) OVER (PARTITION BY coalesce(compared.suite, compared."group")) NULLS LAST,
    compared.suite,
    compared."group",
    methods.rank NULLS LAST,
    compared.method
