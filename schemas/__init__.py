"""The contracts of all tables: columns, comments, key, checks and properties."""

from schemas.bronze import (
    BRONZE_REVIEWS,
    LABEL_SPELLINGS,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    UNKNOWN,
    UNLABELLED,
)
from schemas.contract import Column, Table, View
from schemas.gold import (
    GOLD_CURRENT_SCORES,
    GOLD_LINEAGE,
    GOLD_REJECTS,
    GOLD_REVIEWS,
    GOLD_SCORES,
)
from schemas.ops import OPS_DELIVERIES, OPS_MODELS, OPS_PROMOTIONS, OPS_RUNS
from schemas.silver import SILVER_REJECTS, SILVER_REVIEWS

TABLES = (
    BRONZE_REVIEWS,
    SILVER_REVIEWS,
    SILVER_REJECTS,
    GOLD_REVIEWS,
    GOLD_REJECTS,
    GOLD_SCORES,
    OPS_RUNS,
    OPS_DELIVERIES,
    OPS_MODELS,
    OPS_PROMOTIONS,
)
VIEWS = (GOLD_CURRENT_SCORES, GOLD_LINEAGE)
SPLITS = ("train", "validation", "test")
# If copies of a text are in several splits, the one of lowest rank is kept: test before train.
SPLIT_RANK = {"test": 0, "validation": 1, "train": 2}

__all__ = [
    "BRONZE_REVIEWS",
    "GOLD_CURRENT_SCORES",
    "GOLD_LINEAGE",
    "GOLD_REJECTS",
    "GOLD_REVIEWS",
    "GOLD_SCORES",
    "LABEL_SPELLINGS",
    "NEGATIVE",
    "NEUTRAL",
    "OPS_DELIVERIES",
    "OPS_MODELS",
    "OPS_PROMOTIONS",
    "OPS_RUNS",
    "POSITIVE",
    "SILVER_REJECTS",
    "SILVER_REVIEWS",
    "SPLITS",
    "SPLIT_RANK",
    "TABLES",
    "UNKNOWN",
    "UNLABELLED",
    "VIEWS",
    "Column",
    "Table",
    "View",
]
