"""Files of a registered model: find, check against the manifest, copy for workers, load."""

import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipelines.errors import IntegrityError
from pipelines.lake.config import LakeConfig
from pipelines.model.manifest import ManifestError, ModelFile, manifest_sha256, verify_manifest
from pipelines.tracking import store

MANIFEST = "manifest.sha256"  # tag of a model version: hash of its manifest


def directory_of(client: MlflowClient, model_id: str) -> Path:
    """Return the local directory of a logged model."""
    # Not by models:/name/version: MLflow would then write a file of its own into the directory.
    location = client.get_logged_model(model_id).artifact_location
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=location))


def verified_directory(
    client: MlflowClient, version: ModelVersion, files: Sequence[ModelFile]
) -> Path:
    """Return the model's local directory after checking each file against ops.models' manifest.

    Raises IntegrityError (exit 3) before any code of the model is imported.
    """
    where = f"{version.name} version {version.version}"
    if store.tag_of(version, MANIFEST) != manifest_sha256(files):
        raise IntegrityError(
            f"{where}: expected the manifest of ops.models, found another in the registry. "
            "Do not use this version."
        )
    try:
        directory = directory_of(client, str(version.source).removeprefix("models:/"))
        verify_manifest(directory, files)
    except (ManifestError, OSError, MlflowException) as error:
        raise IntegrityError(f"{where}: {error}. Restore the file, or train again.") from error
    return directory


def directory_for_workers(
    client: MlflowClient, version: ModelVersion, files: Sequence[ModelFile], config: LakeConfig
) -> Path:
    """Return a verified directory that every worker can read without the tracking server.

    On a local lake it is the logged model's own; else a copy below --landing.
    """
    directory = verified_directory(client, version, files)
    if config.is_local:
        return directory
    shared = config.landing_path / "models" / manifest_sha256(files)
    if _is_whole(shared, files):
        os.utime(shared)  # a vacuum deletes copies that were not used for long
        return shared
    copy = shared.with_name(f"{shared.name}-{uuid.uuid4().hex}")
    shutil.copytree(directory, copy)
    # If it is whole now, another job has copied it in the meantime.
    if shared.exists() and not _is_whole(shared, files):
        os.rename(shared, shared.with_name(f"damaged-{uuid.uuid4().hex}"))
    with contextlib.suppress(OSError):  # fails if a directory with files is there
        os.rename(copy, shared)
    shutil.rmtree(copy, ignore_errors=True)
    verify_manifest(shared, files)
    return shared


def load_verified(
    directory: Path, files: Sequence[ModelFile]
) -> Callable[[list[str]], pd.DataFrame]:
    """Load the model of a directory that others can write to.

    Raises IntegrityError if its files do not match the manifest.
    """
    try:
        verify_manifest(directory, files)
    except (ManifestError, OSError) as error:
        raise IntegrityError(
            f"{error}. Restore the file; a copy below --landing is made again."
        ) from error
    return load(directory)


def load(directory: Path) -> Callable[[list[str]], pd.DataFrame]:
    """Load the model of a verified directory as a function of texts."""
    # __pycache__ beside the model's code would be a file that is not in the manifest.
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        # To warn of other package versions, MLflow would list all installed packages: a second.
        model = mlflow.pyfunc.load_model(str(directory), suppress_warnings=True)
    finally:
        sys.dont_write_bytecode = before
    return lambda texts: model.predict(pd.DataFrame({"text": texts}))


def _is_whole(directory: Path, files: Sequence[ModelFile]) -> bool:
    try:
        verify_manifest(directory, files)
    except ManifestError:
        return False
    return True
