"""Healthy read-only statements, which query answers and both judges accept."""

READS = [
    "SELECT 1",
    "select 1;",
    "  (SELECT 1) UNION (SELECT 2)",
    "-- why\nSELECT 1 -- here",
    "/* a /* nested */ comment */ SELECT 1",
    "WITH one AS (SELECT 1 AS n) SELECT * FROM one",
    "FROM range(3) SELECT id",
    "FROM range(3) |> WHERE id > 1",
    "VALUES (1), (2)",
    "SELECT * FROM VALUES ('using', 'reflect'), ('a map', 'execute') AS t(a, b) "
    "WHERE a LIKE '%using%' ORDER BY b",
    "SELECT transform(array(1), x -> x + 1) AS t FROM range(1) JOIN range(2) USING (id)",
    "SHOW DATABASES",
    "DESCRIBE FUNCTION upper",
    "DESC QUERY SELECT 1",
    "EXPLAIN SELECT 1",
    "explain extended WITH one AS (SELECT 1 AS n) SELECT * FROM one",
]
