"""MLflow's model registry: log a model, register and find versions, move aliases."""

import importlib.metadata
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.tracking import MlflowClient

from pipelines.errors import InputError, IntegrityError
from pipelines.lake.config import LakeConfig
from pipelines.model.manifest import ModelFile, manifest_sha256
from pipelines.tracking import store
from pipelines.tracking.model_files import MANIFEST, files_of
from pipelines.tracking.names import CHALLENGER, CHAMPION

log = logging.getLogger("reviewlake")
Result = TypeVar("Result")

RUN_KEY = "run_key"  # tag of a model version: the ledger's key of its training
# Packages that the logged code imports; logged with the installed versions.
REQUIREMENTS = ("mlflow", "numpy", "pandas", "safetensors", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Registered:
    """A model version with the manifest of its files."""

    name: str
    version: int
    run_id: str
    files: list[ModelFile]

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file."""
        return _weights_sha256(self.files)

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of the manifest."""
        return manifest_sha256(self.files)


def register(
    client: MlflowClient, name: str, directory: Path, tags: Mapping[str, str], card: str
) -> Registered:
    """Log a model directory in the active run; register it as newest version and challenger."""
    from pipelines.model import classifier  # it imports torch, which no other function needs

    example = pd.DataFrame(
        {"text": ["Best movie I have seen.", "The worst movie in the history of cinema."]}
    )
    info = mlflow.pyfunc.log_model(
        name="model",
        python_model=classifier.__file__,
        artifacts={"model": str(directory)},
        signature=classifier.SIGNATURE,
        input_example=example,
        pip_requirements=[f"{package}=={_version_of(package)}" for package in REQUIREMENTS],
    )
    files = files_of(client, info.model_id)
    _ensure(client, name)
    created = client.create_model_version(
        name,
        source=f"models:/{info.model_id}",
        run_id=info.run_id,
        model_id=info.model_id,
        description=card,
        tags=store.version_tags(mlflow.get_registry_uri(), {**tags, **_tags_of(files)}),
    )
    registered = Registered(name, int(created.version), run_id=info.run_id, files=files)
    _announce(client, registered)
    return registered


def adopt_interrupted(
    client: MlflowClient, name: str, run_key: str, recorded: Collection[tuple[str, int]]
) -> tuple[Registered, str] | None:
    """Return the version that a killed training registered, and the content hash of its data.

    `run_key` is the training's key in the ledger, `recorded` the versions in ops.models. Ends the
    training's run and sets the alias. Returns None if there is no such version, or if its files
    are incomplete.
    """
    for version in _all(partial(client.search_model_versions, f"name = '{name}'")):
        key = (name, int(version.version))
        if key in recorded or store.tag_of(version, RUN_KEY) != run_key:
            continue
        try:
            files = files_of(client, str(version.source).removeprefix("models:/"))
        except IntegrityError as error:
            log.info("%s version %s: not adopted: %s", *key, error)
            continue
        content_hash = store.tag_of(version, "content_hash")
        if store.tag_of(version, MANIFEST) != manifest_sha256(files) or content_hash is None:
            continue
        registered = Registered(*key, run_id=str(version.run_id), files=files)
        log.info("%s version %s: registered by an interrupted run; adopted", *key)
        client.set_terminated(registered.run_id)
        _announce(client, registered)
        return registered, content_hash
    return None


def version_of(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the model version behind an alias; None if the alias is not set.

    Raises SetupError if the store does not answer.
    """
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in store.ABSENT:
            raise store.unreadable(error) from error
        return None


def version_number(client: MlflowClient, name: str, alias: str) -> int | None:
    """Return the number of the model version behind an alias; None if the alias is not set."""
    version = version_of(client, name, alias)
    return None if version is None else int(version.version)


def resolve(client: MlflowClient, name: str, alias_or_version: str) -> ModelVersion:
    """Return the model version of an alias or a number; InputError if there is none."""
    try:
        if alias_or_version.isdigit():
            return client.get_model_version(name, alias_or_version)
        return client.get_model_version_by_alias(name, alias_or_version)
    except MlflowException as error:
        if error.error_code not in store.ABSENT:
            raise store.unreadable(error) from error
        job = "promote" if alias_or_version == CHAMPION else "train"
        raise InputError(
            f"{name}: expected a version or alias {alias_or_version}, found none. "
            f"Run jobs/{job}.py first."
        ) from error


def live_versions(client: MlflowClient, names: Iterable[str]) -> set[tuple[str, int]]:
    """Return name and number of all versions of these models in the registry."""
    return {
        (name, int(version.version))
        for name in sorted(names)  # Unity Catalog can only search by one name
        for version in _all(partial(client.search_model_versions, f"name = '{name}'"))
    }


def names(client: MlflowClient, config: LakeConfig, recorded: Collection[str]) -> set[str]:
    """Return the lake's registered models, even if all their versions were deleted.

    Unity Catalog's registry is shared: there, a model is the lake's if ops.models has recorded
    it, or if its schema is one of the lake's.
    """
    registered = {model.name for model in _all(client.search_registered_models)}
    return {name for name in registered if name in recorded or store.is_ours(name, config)}


def run_id_of(client: MlflowClient, run: str) -> str:
    """Return the run id of models:/name@alias or models:/name/version; keep a run id as it is."""
    named = re.fullmatch(r"models:/([^@/]+)[@/]([^@/]+)", run)
    return str(resolve(client, named[1], named[2]).run_id) if named else run


def move_aliases(client: MlflowClient, name: str, aliases: Mapping[str, int | None]) -> None:
    """Set each alias to its version; None removes the alias."""
    for alias, version in aliases.items():
        if version is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(version))
        log.info("%s: alias %s %s", name, alias, f"is version {version}" if version else "removed")


def _announce(client: MlflowClient, registered: Registered) -> None:
    name, version = registered.name, str(registered.version)
    client.set_registered_model_alias(name, CHALLENGER, version)
    log.info("%s version %s: registered, alias %s", name, version, CHALLENGER)


def _weights_sha256(files: Iterable[ModelFile]) -> str:
    return next(sha256 for path, _, sha256 in files if path.endswith("model.safetensors"))


def _tags_of(files: list[ModelFile]) -> dict[str, str]:
    """Return the tags that identify the files of a model version."""
    return {
        "manifest": json.dumps(files),
        MANIFEST: manifest_sha256(files),
        "weights.sha256": _weights_sha256(files),
    }


def _ensure(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in store.ABSENT:
            raise store.unreadable(error) from error
        client.create_registered_model(name)


def _all(search: Callable[..., PagedList[Result]]) -> Iterator[Result]:
    """Yield the results of a search, page after page."""
    token: str | None = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _version_of(package: str) -> str:
    # Without +cpu or +cu130: package indexes have no such version.
    return importlib.metadata.version(package).split("+")[0]
