"""Files of a registered model: find, check against the manifest, copy for workers, load."""

import contextlib
import os
import shutil
import sys
import tempfile
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
from pipelines.model.manifest import (
    ManifestError,
    ModelFile,
    copy_verified,
    extra_files,
    manifest_of,
    manifest_sha256,
    verify_manifest,
)
from pipelines.tracking import store

MANIFEST = "manifest.sha256"  # tag of a model version: hash of its manifest


def directory_of(client: MlflowClient, model_id: str) -> Path:
    """Return the local directory of a logged model; ManifestError if a link stands in its place."""
    # Not by models:/name/version: MLflow would then write a file of its own into the directory.
    location = client.get_logged_model(model_id).artifact_location
    directory = Path(mlflow.artifacts.download_artifacts(artifact_uri=location))
    for place in (directory.parent, directory):  # <lake>/mlflow/artifacts/models/<id>/artifacts
        if place.is_symlink():
            raise ManifestError(f"{place}: expected a directory, found: a link")
    return directory


def files_of(client: MlflowClient, model_id: str) -> list[ModelFile]:
    """Return the manifest of a logged model; IntegrityError for missing files and for links."""
    try:
        return manifest_of(directory_of(client, model_id))
    except (ManifestError, OSError, MlflowException) as error:
        raise IntegrityError(f"{model_id}: {error}. Train again.") from error


def extras_of(
    client: MlflowClient, version: ModelVersion, files: Sequence[ModelFile]
) -> list[tuple[Path, str]]:
    """Return path and kind of the files beside a model that neither MLflow nor Python writes.

    Raises IntegrityError if the directory cannot be listed as a whole.
    """
    try:
        directory = directory_of(client, str(version.source).removeprefix("models:/"))
        return [(directory / path, kind) for path, kind in extra_files(directory, files)]
    except (ManifestError, OSError, MlflowException) as error:
        raise IntegrityError(f"its directory cannot be listed: {error}") from error


def verified_directory(
    client: MlflowClient, version: ModelVersion, files: Sequence[ModelFile]
) -> Path:
    """Return the model's local directory after checking each file against ops.models' manifest.

    Raises IntegrityError (exit 3). Other files in the directory are not read: `load` takes a copy.
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
    try:
        copy_verified(directory, copy, files)
        # If it is whole now, another job has copied it in the meantime.
        if os.path.lexists(shared) and not _is_whole(shared, files):
            os.rename(shared, shared.with_name(f"damaged-{uuid.uuid4().hex}"))
        with contextlib.suppress(OSError):  # fails if a directory with files is there
            os.rename(copy, shared)
        verify_manifest(shared, files)
    except ManifestError as error:
        raise IntegrityError(f"{error}. Restore the file, or run the job again.") from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return shared


def load(directory: Path, files: Sequence[ModelFile]) -> Callable[[list[str]], pd.DataFrame]:
    """Load a model as a function of texts, from a private copy of exactly the manifest's files.

    So nobody can exchange a file after it was verified, and no other file is found: no bytecode,
    no package. Raises IntegrityError if a file does not match the manifest.
    """
    with tempfile.TemporaryDirectory(prefix="reviewlake-model-") as private:  # mode 0700
        copy = Path(private) / "model"
        try:
            copy_verified(directory, copy, files)
        except ManifestError as error:
            raise IntegrityError(
                f"{error}. Restore the file; a copy below --landing is made again."
            ) from error
        before = sys.dont_write_bytecode
        sys.dont_write_bytecode = True  # also with PYTHONPYCACHEPREFIX, outside of the copy
        try:
            # To warn of other package versions, MLflow would list all installed packages.
            model = mlflow.pyfunc.load_model(str(copy), suppress_warnings=True)
        finally:
            sys.dont_write_bytecode = before
    return lambda texts: model.predict(pd.DataFrame({"text": texts}))


def _is_whole(directory: Path, files: Sequence[ModelFile]) -> bool:
    try:
        verify_manifest(directory, files)
    except ManifestError:
        return False
    return True
