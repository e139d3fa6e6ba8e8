"""Rules of Unity Catalog's registry: URIs, names and tags. Needs no Spark and no workspace."""

import pytest

from pipelines.lake.config import LakeConfig
from pipelines.tracking.store import is_ours, tag_name, uris, version_tags

CONFIG = LakeConfig(
    catalog="main", landing="/Volumes/x", schemas="dev_bronze,dev_silver,dev_gold,dev_ops"
)


@pytest.mark.parametrize(
    ("environment", "tracking", "registry"),
    [
        ({}, "databricks", "databricks-uc"),
        ({"MLFLOW_TRACKING_URI": "databricks"}, "databricks", "databricks-uc"),
        ({"MLFLOW_TRACKING_URI": "databricks://dev"}, "databricks://dev", "databricks-uc://dev"),
        ({"MLFLOW_TRACKING_URI": "sqlite:////m.db"}, "sqlite:////m.db", "sqlite:////m.db"),
        ({"MLFLOW_REGISTRY_URI": "sqlite:////m.db"}, "databricks", "sqlite:////m.db"),
    ],
)
def test_runs_and_models_are_in_the_workspace_unless_mlflows_variables_name_another_store(
    environment: dict[str, str], tracking: str, registry: str
) -> None:
    assert uris(environment) == (tracking, registry)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("main.dev_gold.review_classifier", True),
        ("MAIN.Dev_Gold.review_classifier", True),
        ("main.gold.review_classifier", False),
        ("other.dev_gold.review_classifier", False),
        ("review_classifier", True),
        ("review.classifier", True),
    ],
)
def test_a_model_belongs_to_the_lake_by_its_schema(name: str, expected: bool) -> None:
    assert is_ours(name, CONFIG) == expected


@pytest.mark.parametrize(
    "uri", ["databricks-uc", "databricks-uc://dev", "uc:http://127.0.0.1:8080"]
)
def test_tags_are_valid_in_unity_catalog(uri: str) -> None:
    assert tag_name(uri, "weights.sha256") == "weights_sha256"
    given = {
        "manifest.sha256": "a" * 64,
        "cpu flags": "",
        "manifest": "x" * 1_001,
        "card": "x" * 1_000,
    }
    assert version_tags(uri, given) == {
        "manifest_sha256": "a" * 64,
        "cpu_flags": "",
        "card": "x" * 1_000,
    }
    assert version_tags("sqlite:////m.db", given) == given
