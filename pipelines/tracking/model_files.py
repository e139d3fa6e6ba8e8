"""A registered model's files: found, checked against their manifest, brought to the workers, loaded."""

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

MANIFEST = "manifest.sha256"  # the tag of a model version that holds its manifest's hash


def directory_of(client: MlflowClient, model_id: str) -> Path:
    """A logged model's local directory."""
    # By its own location, not models:/name/version: that way MLflow writes a file of its own into the directory.
    location = client.get_logged_model(model_id).artifact_location
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=location))


def verified_directory(
    client: MlflowClient, version: ModelVersion, files: Sequence[ModelFile]
) -> Path:
    """The logged model's local directory, every file of it as the manifest in ops.models says.

    Raises IntegrityError (exit 3) before anything of the model is imported.
    """
    where = f"{version.name} version {version.version}"
    if store.tag_of(version, MANIFEST) != manifest_sha256(files):
        raise IntegrityError(
            f"{where}: expected the manifest of ops.models, found another in the registry. Do not use this version."
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
    """The verified files where every worker finds them without the tracking server: here, or copied to --landing."""
    directory = verified_directory(client, version, files)
    if config.is_local:
        return directory
    shared = config.landing_path / "models" / manifest_sha256(files)
    if _is_whole(shared, files):
        os.utime(shared)  # a vacuum clears away what has long not been used
        return shared
    copy = shared.with_name(f"{shared.name}-{uuid.uuid4().hex}")
    shutil.copytree(directory, copy)
    # A whole directory here was put by another job in the meantime.
    if shared.exists() and not _is_whole(shared, files):
        os.rename(shared, shared.with_name(f"damaged-{uuid.uuid4().hex}"))
    with contextlib.suppress(OSError):  # a directory that holds something is not replaced
        os.rename(copy, shared)
    shutil.rmtree(copy, ignore_errors=True)
    verify_manifest(shared, files)
    return shared


def load_verified(
    directory: Path, files: Sequence[ModelFile]
) -> Callable[[list[str]], pd.DataFrame]:
    """The model of a directory that others can write to; IntegrityError unless its files are the manifest's."""
    try:
        verify_manifest(directory, files)
    except (ManifestError, OSError) as error:
        raise IntegrityError(
            f"{error}. Restore the file; a copy below --landing is made anew."
        ) from error
    return load(directory)


def load(directory: Path) -> Callable[[list[str]], pd.DataFrame]:
    """The model of a verified directory as a function of texts."""
    # Python would leave __pycache__ beside the model's code: a file that the manifest does not hold.
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        # No warnings: for those of packages in other versions MLflow lists every package that there is, for a second.
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
