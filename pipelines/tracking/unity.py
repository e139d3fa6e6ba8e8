"""What Unity Catalog's model registry wants otherwise: where it is, what a tag may be, whose a model is."""

import re
from collections.abc import Mapping

from pipelines.errors import InputError
from pipelines.lake.session import LakeConfig

UNITY = ("databricks-uc", "uc:")
MOST_CHARACTERS = 1_000  # of a tag's value


def uris(environment: Mapping[str, str]) -> tuple[str, str]:
    """Where runs and where models are kept, unless the lake keeps them itself: by default in the workspace."""
    tracking = environment.get("MLFLOW_TRACKING_URI", "databricks")
    return tracking, environment.get("MLFLOW_REGISTRY_URI", re.sub("^databricks(?!-uc)", "databricks-uc", tracking))


def require_place(config: LakeConfig, environment: Mapping[str, str]) -> None:
    """Raise InputError where nothing says where the models of an object store's tables are kept."""
    if not config.catalog and "MLFLOW_TRACKING_URI" not in environment:
        raise InputError(
            f"--lake {config.lake}: expected MLFLOW_TRACKING_URI to name an MLflow server or database, found it not "
            "set: only tables are kept in a store. Set it for every job."
        )


def is_ours(name: str, config: LakeConfig) -> bool:
    """Whether a model is the lake's: Unity Catalog's registry is shared, and a name there tells its schema."""
    ours = {f"{config.catalog}.{schema}".lower() for schema in config.schema_names.values()}
    return name.count(".") != 2 or name.rpartition(".")[0].lower() in ours


def tag_name(registry_uri: str, name: str) -> str:
    """A model version's tag as the registry takes it: in Unity Catalog without . , - = / : and blanks."""
    return re.sub(r"[.,\-=/:\s]", "_", name) if registry_uri.startswith(UNITY) else name


def version_tags(registry_uri: str, tags: Mapping[str, str]) -> dict[str, str]:
    """A model version's tags as the registry takes them: Unity Catalog's are short, and the manifest is in Delta."""
    is_unity = registry_uri.startswith(UNITY)
    return {tag_name(registry_uri, n): v for n, v in tags.items() if not is_unity or len(v) <= MOST_CHARACTERS}
