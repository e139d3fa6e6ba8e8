"""Read databricks.yml for one target, as the Databricks CLI does.

Overrides of the target are merged, names get their prefix, references ${...} are resolved.
"""

import getpass
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipelines.errors import InputError
from pipelines.provenance import ROOT

DEFINITION = ROOT / "databricks.yml"
LOCAL = "local"  # the only target whose tables are directories
PREFIX = "BUNDLE_VAR_"  # prefix of environment variables that set variables
# ${section.name} or ${section.list[0].name}. OmegaConf itself accepts more: ${oc.env:PATH} would
# read the environment, and a backslash would hide a reference.
REFERENCE = re.compile(r"(?<!\\)\$\{[\w-]+(?:\.[\w-]+|\[\d+\])*\}")
# In these lists an override changes the entry with the same value of this field. To any other list
# an override appends its entries.
KEYED = {
    "tasks": "task_key",
    "job_clusters": "job_cluster_key",
    "environments": "environment_key",
    "parameters": "name",
}
UNREAD = ("artifacts", "definitions")  # the build of the wheel; anchors for the file
DECLARATION = {"default", "description", "type", "lookup"}  # keys that declare a variable
Place = tuple[str | int, ...]


def definition_for(target: str, variables: Mapping[str, str], user: str = "") -> dict[str, Any]:
    """Return databricks.yml for a target. BUNDLE_VAR_<name> sets a variable, as for the CLI."""
    exported = {
        name: os.environ[PREFIX + name]
        for name in variables_of(DEFINITION)
        if PREFIX + name in os.environ
    }
    return load(
        DEFINITION,
        target,
        variables={**exported, **variables},
        user=user or getpass.getuser(),
    )


def load(file: Path, target: str, *, variables: Mapping[str, str], user: str) -> dict[str, Any]:
    """Return the definition for a target, with every reference resolved.

    variables  values of --var; they take precedence over the target's values and the defaults
    user       value of ${workspace.current_user.userName}: an e-mail address or a login
    Raises InputError for a missing file, target or variable, and for a reference that is undefined,
    circular or of another kind than ${section.name}.
    """
    merged_tree = merged(read(file), target, file.name)
    tree = {name: part for name, part in merged_tree.items() if name not in UNREAD}
    current_user = {"userName": user, "short_name": short_name(user)}
    tree["bundle"] = {**tree.get("bundle", {}), "target": target}
    tree["workspace"] = {**tree.get("workspace", {}), "current_user": current_user}
    tree["variables"] = _assigned(tree.get("variables", {}), variables, file.name)
    _require_plain_references(tree, file.name)
    try:
        config = OmegaConf.create({"resources": {}, **tree, "var": "${variables}"})
        if tree.get("mode") == "development":
            prefix_names(config["resources"], short_name(user))
        add_volume_paths(config["resources"])
        resolved: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        cause = str(error).splitlines()[0]
        raise InputError(f"{file.name}: {error.full_key}: {cause}. Correct it there.") from error
    return {name: part for name, part in resolved.items() if name != "var"}


def targets_of(file: Path) -> list[str]:
    """Return the names of the targets, in the file's order."""
    return list(read(file).get("targets", {}))


def variables_of(file: Path) -> list[str]:
    """Return the names of the variables."""
    return list(read(file).get("variables", {}))


def read(file: Path) -> dict[str, Any]:
    """Return the definition as it is written, with nothing merged or resolved."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{file}: the bundle's definition cannot be read: {error.strerror}. "
            "Run this from a checkout of the repository."
        ) from error
    except yaml.YAMLError as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{file.name}: invalid YAML: {cause}. Correct it there.") from error
    if not isinstance(tree, dict):
        raise InputError(
            f"{file.name}: expected a mapping with bundle, resources and targets, "
            f"found {type(tree).__name__}."
        )
    return tree


def merged(definition: Mapping[str, Any], target: str, where: str) -> dict[str, Any]:
    """Return the definition with one target's overrides merged in, and without the targets."""
    targets = definition.get("targets", {})
    if target not in targets:
        names = ", ".join(targets) or "none"
        raise InputError(f"{where}: no target {target}; it has {names}. Pass one of them.")
    base = {name: part for name, part in definition.items() if name != "targets"}
    override = dict(targets[target] or {})
    assigned = override.pop("variables", {})
    tree = _merge(base, override, name="")
    variables = dict(tree.get("variables", {}))
    for name, value in assigned.items():
        is_declaration = isinstance(value, Mapping) and set(value) <= DECLARATION
        declaration = value if is_declaration else {"default": value}
        # A default that is a mapping is replaced as a whole, not merged.
        variables[name] = {**(variables.get(name) or {}), **declaration}
    return {**tree, "variables": variables}


def short_name(user: str) -> str:
    """Return the user's name for prefixes: the part before the @, of a-z, 0-9 and single _."""
    return re.sub(r"[\W_]+", "_", user.split("@")[0].lower()).strip("_")


def prefix_names(resources: DictConfig, short: str) -> None:
    """Prefix names in place as `mode: development` does, as far as tasks get them as arguments."""
    written: Any = OmegaConf.to_container(resources, resolve=False)
    for kind in ("schemas", "registered_models"):
        for key, resource in written.get(kind, {}).items():
            resources[kind][key]["name"] = f"dev_{short}_{resource['name']}"
    for experiment in resources.get("experiments", {}).values():
        # Resolved here: the prefix goes after the folder, which may come from a variable.
        folder, slash, name = experiment["name"].rpartition("/")
        experiment["name"] = f"{folder}{slash}[dev {short}] {name}"


def add_volume_paths(resources: DictConfig) -> None:
    """Add in place the path that the workspace computes for each volume."""
    for key, volume in resources.get("volumes", {}).items():
        fields = ("catalog_name", "schema_name", "name")
        names = [f"${{resources.volumes.{key}.{field}}}" for field in fields]
        volume["volume_path"] = "/".join(["/Volumes", *names])


def texts_below(value: Any, path: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield every text below a value, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from texts_below(part, (*path, name))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from texts_below(part, (*path, number))


def place_name(path: Sequence[str | int]) -> str:
    """Return a place in the definition as text: resources.jobs.pipeline.tasks[0]."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return "".join(steps).removeprefix(".")


def _merge(base: Any, override: Any, name: str) -> Any:
    if isinstance(base, Mapping) and isinstance(override, Mapping):
        common = {key: _merge(base[key], override[key], key) for key in override if key in base}
        return {**base, **override, **common}
    if isinstance(base, list) and isinstance(override, list):
        return _merge_lists(base, override, KEYED.get(name, ""))
    return override


def _merge_lists(base: list[Any], override: list[Any], key: str) -> list[Any]:
    entries = [*base, *override]
    if not key or not all(isinstance(entry, Mapping) and key in entry for entry in entries):
        return entries
    by_key = {entry[key]: entry for entry in base}
    for entry in override:
        known = by_key.get(entry[key], {})
        by_key[entry[key]] = _merge(known, entry, name="")
    return list(by_key.values())


def _assigned(declared: Mapping[str, Any], given: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return each variable's value: the given one, or else its default."""
    if unknown := sorted(set(given) - set(declared)):
        names = ", ".join(declared)
        raise InputError(f"{where}: no variable {unknown[0]}; it has {names}. Pass one of them.")
    values: dict[str, Any] = {}
    for name, declaration in declared.items():
        if name in given:
            values[name] = given[name]
        elif "default" in (declaration or {}):
            default = declaration["default"]
            # In a text the CLI writes true, where OmegaConf would write True.
            values[name] = str(default).lower() if isinstance(default, bool) else default
        else:
            raise InputError(f"{where}: variable {name} has no value. Pass --var {name}=VALUE.")
    return values


def _require_plain_references(tree: Mapping[str, Any], where: str) -> None:
    """Raise InputError for a reference of another kind than ${section.name}."""
    for path, text in texts_below(tree):
        if "${" in REFERENCE.sub("", text):
            raise InputError(
                f"{where}: {place_name(path)}: unknown reference in {text!r}. "
                "Only ${section.name} is resolved."
            )
