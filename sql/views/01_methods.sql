-- methods: the methods, in the order in which tables show them.
-- grain: one row per method of the registry.
--   method     its name
--   rank       its position, from 1; methods not listed here come last
SELECT method, rank
FROM (VALUES
    ('source', 1),
    ('greedy-em', 2),
    ('em-seq', 3),
    ('em-tok', 4),
    ('em-tok-b', 5),
    ('em-tok-policy', 6),
    ('em-tok-entropy', 7),
    ('mbr', 8),
    ('em-tok-b+mbr', 9)
) AS listed (method, rank)
