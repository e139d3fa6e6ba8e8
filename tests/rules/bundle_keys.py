"""Keys that databricks.yml may hold: of a misspelt key the CLI only warns, and CI has no CLI.

The names are those of Databricks' published bundle schema (CLI 1.13), for the kinds of resource
that this project uses and without deprecated ones.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.bundle.resolve import place_name, read

Keys = Any  # a mapping of keys, a list of one such mapping, or None for a part that is not checked


def _keys(names: str, **deeper: Keys) -> dict[str, Keys]:
    return dict.fromkeys(names.split()) | deeper


_EACH = "*"  # stands for any name
_LIFECYCLE = _keys("prevent_destroy")
_GRANTS = [_keys("principal privileges")]
_PERMISSIONS = [_keys("level user_name group_name service_principal_name")]
_NOTIFICATIONS = _keys(
    "on_start on_success on_failure on_duration_warning_threshold_exceeded "
    "on_streaming_backlog_exceeded no_alert_for_skipped_runs"
)
_HEALTH = _keys("", rules=[_keys("metric op value")])
_CLUSTER = _keys(
    "spark_version node_type_id driver_node_type_id num_workers autoscale data_security_mode "
    "single_user_name spark_conf spark_env_vars custom_tags policy_id instance_pool_id "
    "aws_attributes azure_attributes gcp_attributes runtime_engine init_scripts is_single_node "
    "kind use_ml_runtime"
)
_TASK = _keys(
    "task_key description run_if environment_key job_cluster_key timeout_seconds max_retries "
    "min_retry_interval_millis retry_on_timeout disable_auto_optimization disabled",
    depends_on=[_keys("task_key outcome")],
    spark_python_task=_keys("python_file parameters source"),
    condition_task=_keys("op left right"),
    libraries=[_keys("whl pypi requirements")],
    email_notifications=_NOTIFICATIONS,
    health=_HEALTH,
)
_TRIGGER = _keys(
    "pause_status",
    periodic=_keys("interval unit"),
    file_arrival=_keys("url min_time_between_triggers_seconds wait_after_last_change_seconds"),
    table_update=_keys(
        "table_names condition min_time_between_triggers_seconds wait_after_last_change_seconds"
    ),
)
_JOB = _keys(
    "name description max_concurrent_runs timeout_seconds tags performance_target "
    "budget_policy_id usage_policy_id",
    parameters=[_keys("name default")],
    environments=[_keys("environment_key", spec=_keys("environment_version dependencies"))],
    job_clusters=[_keys("job_cluster_key", new_cluster=_CLUSTER)],
    schedule=_keys("quartz_cron_expression timezone_id pause_status"),
    trigger=_TRIGGER,
    continuous=_keys("pause_status task_retry_mode"),
    queue=_keys("enabled"),
    health=_HEALTH,
    email_notifications=_NOTIFICATIONS,
    notification_settings=_keys("no_alert_for_skipped_runs no_alert_for_canceled_runs"),
    permissions=_PERMISSIONS,
    run_as=_keys("user_name service_principal_name"),
    tasks=[_TASK],
)
_SECURABLE = _keys("name catalog_name comment", grants=_GRANTS, lifecycle=_LIFECYCLE)
_EXPERIMENT = _keys("name artifact_location tags", permissions=_PERMISSIONS, lifecycle=_LIFECYCLE)
_RESOURCES: dict[str, Keys] = {
    "schemas": {_EACH: _SECURABLE | _keys("properties storage_root")},
    "volumes": {_EACH: _SECURABLE | _keys("schema_name volume_type storage_location")},
    "registered_models": {_EACH: _SECURABLE | _keys("schema_name storage_location")},
    "experiments": {_EACH: _EXPERIMENT},
    "jobs": {_EACH: _JOB | {"lifecycle": _LIFECYCLE}},
}
_VARIABLE = _keys("description default type lookup")
_SHARED = _keys(
    "",
    bundle=_keys("name databricks_cli_version engine deployment git"),
    workspace=_keys(
        "host profile root_path artifact_path file_path state_path resource_path auth_type"
    ),
    artifacts={_EACH: _keys("type build path files executable dynamic_version")},
    resources=_RESOURCES,
    permissions=_PERMISSIONS,
    run_as=_keys("user_name service_principal_name"),
    presets=_keys(
        "name_prefix tags trigger_pause_status jobs_max_concurrent_runs source_linked_deployment "
        "artifacts_dynamic_version"
    ),
    sync=_keys("include exclude paths"),
)
ROOT_KEYS = _SHARED | {
    "definitions": None,  # anchors for the rest of the file
    "variables": {_EACH: _VARIABLE},
    "targets": {_EACH: _SHARED | {"mode": None, "default": None, "variables": None}},
}


def unknown_keys(file: Path) -> Iterator[str]:
    """Yield a line for each key that the schema does not have."""
    for path in _unknown(read(file), ROOT_KEYS, ()):
        yield f"{place_name(path)}: no key of the bundle's schema. Correct its spelling."


def _unknown(
    value: Any, keys: Keys, path: tuple[str | int, ...]
) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, list) and isinstance(keys, list):
        for number, part in enumerate(value):
            yield from _unknown(part, keys[0], (*path, number))
    elif isinstance(value, Mapping) and isinstance(keys, Mapping):
        for name, part in value.items():
            if name in keys or _EACH in keys:
                yield from _unknown(part, keys.get(name, keys.get(_EACH)), (*path, name))
            else:
                yield (*path, name)
