-- methods: the methods in the order in which tables show them.
-- grain: one row a method of the registry.
--   method     its name
--   rank       its place, from 1; a method that is not listed here comes after all that are
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
