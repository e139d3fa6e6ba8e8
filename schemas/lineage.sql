-- A row per scored row and origin. Outer joins: where a link is missing its columns are null, and the row stays.
SELECT
  s.review_id,
  s.model_name,
  s.model_version,
  s.run_id,
  m.code_commit,
  m.gold_version,
  m.silver_version AS learned_silver_version,
  m.bronze_version AS learned_bronze_version,
  s.silver_version,
  cleaned.bronze_version,
  s.source,
  origin.source_file,
  origin.source_sha256,
  origin.row_number,
  place = 0 AS is_first_origin,
  s.probability,
  s.prediction,
  s.scored_at
FROM gold.scores AS s
LEFT JOIN ops.models AS m
  ON m.model_name = s.model_name AND m.model_version = s.model_version AND m.run_id = s.run_id
LEFT JOIN (
  -- Several runs may have left the same version, since nothing had changed: the first one wrote the rows.
  SELECT
    output_versions['silver.reviews'] AS silver_version,
    min_by(input_versions['bronze.reviews'], finished_at) AS bronze_version
  FROM ops.runs
  WHERE stage = 'clean' AND state = 'done'
  GROUP BY output_versions['silver.reviews']
) AS cleaned
  ON cleaned.silver_version = s.silver_version
LATERAL VIEW OUTER posexplode(s.origins) AS place, origin
