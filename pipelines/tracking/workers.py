"""A registered model for Spark's workers: found, verified, and placed where they can read it."""

from functools import partial

from pipelines.lake.tables import TableStore
from pipelines.model.manifest import manifest_sha256
from pipelines.model.predict import VerifiedModel
from pipelines.tracking import model_files, model_table, registry
from pipelines.tracking.store import connect


def verified_model(store: TableStore, name: str, version: int) -> VerifiedModel:
    """Return a version by its number. Raises IntegrityError for a file that was changed."""
    client = connect(store.config)
    registered = registry.resolve(client, name, str(version))
    record = model_table.record_of(store, registered)
    directory = model_files.directory_for_workers(client, registered, record.files, store.config)
    load = partial(model_files.load, directory, record.files)
    return VerifiedModel(record.run_id, manifest_sha256(record.files), load)
