"""What Unity Catalog's model registry wants otherwise: where it is, what a tag may be, whose a model is."""

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from pipelines.errors import InputError, SetupError
from pipelines.lake.config import LakeConfig

log = logging.getLogger("reviewlake")

UNITY = ("databricks-uc", "uc:")
MAX_CHARACTERS = 1_000  # of a tag's value
# The stores' error codes for a model or an alias that does not exist.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def uris(environment: Mapping[str, str]) -> tuple[str, str]:
    """Where runs and where models are kept, unless the lake keeps them itself: by default in the workspace."""
    tracking = environment.get("MLFLOW_TRACKING_URI", "databricks")
    unity = re.sub("^databricks(?!-uc)", "databricks-uc", tracking)
    return tracking, environment.get("MLFLOW_REGISTRY_URI", unity)


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
    return {
        tag_name(registry_uri, name): value
        for name, value in tags.items()
        if not is_unity or len(value) <= MAX_CHARACTERS
    }


def tag_of(version: ModelVersion, name: str) -> str | None:
    """Return a tag of a model version by the name that version_tags was given; None if not set."""
    return version.tags.get(tag_name(mlflow.get_registry_uri(), name))


def connect(config: LakeConfig) -> MlflowClient:
    """A client of the lake's own store (sqlite, no server), or of the workspace. SetupError where it is unreadable.

    Under a catalog MLflow's own variables, MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI, choose another.
    """
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
    if config.is_local:
        directory = config.lake_path / "mlflow"
        directory.mkdir(parents=True, exist_ok=True)
        _create_whole(directory / "mlflow.db")
        mlflow.set_tracking_uri(f"sqlite:///{directory / 'mlflow.db'}")
        # Else MLFLOW_REGISTRY_URI would take the models elsewhere.
        mlflow.set_registry_uri(mlflow.get_tracking_uri())
    else:
        require_place(config, os.environ)
        tracking, registry = uris(os.environ)
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(registry)
    try:
        client = MlflowClient()  # opens the store
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        raise unreadable(error) from error
    return client


def _create_whole(database: Path) -> None:
    """Make an empty store, whole or not at all: MLflow makes its tables one by one, and cannot open half of them."""
    if database.exists():
        return
    with tempfile.TemporaryDirectory(prefix="creating-", dir=database.parent) as directory:
        created = Path(directory) / database.name
        MlflowClient(f"sqlite:///{created}").search_experiments(max_results=1)
        try:
            os.link(created, database)
        except FileExistsError:
            log.debug("%s: another process was first", database)
        except OSError:  # a file system without hard links
            os.rename(created, database)


def unreadable(error: Exception) -> SetupError:
    """The error for a store that fails to answer."""
    return SetupError(
        f"{mlflow.get_tracking_uri()}: expected an MLflow store, found: {str(error).splitlines()[0]} "
        "Restore the file from a backup, or pass another --lake."
    )
