-- The champion is the version that the latest promotion or rollback names; a refusal moves nothing.
SELECT s.*
FROM gold.scores AS s
JOIN (
  SELECT model_name, max_by(model_version, decided_at) AS model_version
  FROM ops.promotions
  WHERE decision IN ('promoted', 'rolled_back')
  GROUP BY model_name
) AS champion
  ON champion.model_name = s.model_name AND champion.model_version = s.model_version
