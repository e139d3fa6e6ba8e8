"""databricks.yml for one target: overrides merged, names prefixed, every ${…} resolved, as the Databricks CLI does."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import InputError

REFERENCE = re.compile(r"\$\{([\w.\[\]-]+)\}")
# Lists whose entries a target's override finds by this field; the entries of other lists are added behind.
KEYED = {
    "tasks": "task_key",
    "job_clusters": "job_cluster_key",
    "environments": "environment_key",
    "parameters": "name",
}
UNREAD = ("artifacts", "definitions")  # what is built, and where the file's own anchors stand
Place = tuple[str | int, ...]


def load(file: Path, target: str, variables: Mapping[str, str], user: str) -> dict[str, Any]:
    """The definition as it stands for a target: `resources`, `variables` and the rest, plain values only.

    variables  what --var gave, before a target's and the default value
    user       whom ${workspace.current_user…} names, as an e-mail address or a login
    Raises InputError for a file, target, variable or reference that is not there.
    """
    whole = merged(read(file), target, file.name)
    whole["bundle"] = {**whole.get("bundle", {}), "target": target}
    whole["workspace"] = {
        **whole.get("workspace", {}),
        "current_user": {"userName": user, "short_name": short_name(user)},
    }
    whole["variables"] = _assigned(whole.get("variables", {}), variables, file.name)
    # Two steps, as names get their prefix between them: a name may hold a variable, and others may refer to the name.
    whole = {name: part for name, part in whole.items() if name not in UNREAD}
    whole = _resolved(whole, whole, (), file.name, r"(?!resources\.)")
    resources = whole.get("resources", {})
    if whole.get("mode") == "development":
        prefix_names(resources, short_name(user))
    compute_fields(resources)
    return dict(_resolved(whole, whole, (), file.name, r""))


def targets_of(file: Path) -> list[str]:
    """The names of the targets, in the file's order."""
    return list(read(file).get("targets", {}))


def variables_of(file: Path) -> list[str]:
    """The names of the variables."""
    return list(read(file).get("variables", {}))


def read(file: Path) -> dict[str, Any]:
    """The definition as it is written, nothing resolved."""
    try:
        whole = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{file}: expected the bundle's definition, found {error.strerror}. Run it there."
        ) from error
    except yaml.YAMLError as error:
        raise InputError(
            f"{file.name}: expected YAML, found {' '.join(str(error).split())}."
        ) from error
    if not isinstance(whole, dict):
        raise InputError(
            f"{file.name}: expected a mapping with bundle, resources and targets, found none."
        )
    return whole


def merged(definition: Mapping[str, Any], target: str, where: str) -> dict[str, Any]:
    """The definition with one target's overrides in it, and without the targets."""
    targets = definition.get("targets", {})
    if target not in targets:
        raise InputError(
            f"{where}: expected a target {target}, found {', '.join(targets) or 'none'}. Pass --target."
        )
    below = {name: part for name, part in definition.items() if name != "targets"}
    override = dict(targets[target] or {})
    # A target gives a variable's value where the definition describes the variable.
    given = {
        name: value if isinstance(value, Mapping) and set(value) <= {"default", "description", "type", "lookup"}
        else {"default": value}
        for name, value in override.pop("variables", {}).items()
    }  # fmt: skip
    whole = _merge(below, override, "")
    declared = whole.get("variables", {})
    both = {
        name: {**(declared.get(name) or {}), **value} for name, value in given.items()
    }  # a map is replaced whole
    return {**whole, "variables": {**declared, **both}}


def short_name(user: str) -> str:
    """The part of a user's address before the @, as it goes into names: small letters, digits and single _."""
    return re.sub(r"[\W_]+", "_", user.split("@")[0].lower()).strip("_")


def prefix_names(resources: Mapping[str, Any], short: str) -> None:
    """Rename in place what mode: development renames, of what a job may be told the name."""
    for kind in ("schemas", "registered_models"):
        for resource in resources.get(kind, {}).values():
            resource["name"] = f"dev_{short}_{resource['name']}"
    for experiment in resources.get("experiments", {}).values():
        folder, slash, name = experiment["name"].rpartition("/")
        experiment["name"] = f"{folder}{slash}[dev {short}] {name}"


def compute_fields(resources: Mapping[str, Any]) -> None:
    """Add in place the fields that the workspace computes and a job may be told."""
    for key, volume in resources.get("volumes", {}).items():
        names = (
            f"${{resources.volumes.{key}.{field}}}"
            for field in ("catalog_name", "schema_name", "name")
        )
        volume["volume_path"] = "/".join(["/Volumes", *names])


def references(value: Any, path: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every string below a value, with its place."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from references(part, (*path, name))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from references(part, (*path, number))


def place(path: Sequence[str | int]) -> str:
    """A place in the definition as people write it: resources.jobs.pipeline.tasks[0]."""
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in path
    ).removeprefix(".")


def _merge(below: Any, override: Any, name: str) -> Any:
    if isinstance(below, Mapping) and isinstance(override, Mapping):
        both = {
            key: _merge(below[key], part, key) if key in below else part
            for key, part in override.items()
        }
        return {**below, **both}
    if isinstance(below, list) and isinstance(override, list):
        return _merge_lists(below, override, KEYED.get(name, ""))
    return override


def _merge_lists(below: list[Any], override: list[Any], key: str) -> list[Any]:
    if not key or not all(
        isinstance(entry, Mapping) and key in entry for entry in [*below, *override]
    ):
        return [*below, *override]
    found = {entry[key]: entry for entry in below}
    for entry in override:
        found[entry[key]] = _merge(found[entry[key]], entry, "") if entry[key] in found else entry
    return list(found.values())


def _assigned(declared: Mapping[str, Any], given: Mapping[str, str], where: str) -> dict[str, Any]:
    """Each variable's value: given, or else its default."""
    if unknown := sorted(set(given) - set(declared)):
        raise InputError(
            f"{where}: expected one of its variables, found {unknown[0]}. It has {', '.join(declared)}."
        )
    lacking = [
        name
        for name, part in declared.items()
        if name not in given and "default" not in (part or {})
    ]
    if lacking:
        raise InputError(f"{where}: variable {lacking[0]} has no value. Pass --var {lacking[0]}=…")
    return {
        name: given[name] if name in given else part["default"] for name, part in declared.items()
    }


def _resolved(
    whole: Mapping[str, Any],
    value: Any,
    path: Place,
    where: str,
    only: str,
    seen: tuple[str, ...] = (),
) -> Any:
    """The value with each ${name} replaced whose name the pattern `only` fits; `seen` are the names on the way."""
    if isinstance(value, Mapping):
        return {
            key: _resolved(whole, part, (*path, key), where, only, seen)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [
            _resolved(whole, part, (*path, number), where, only, seen)
            for number, part in enumerate(value)
        ]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> Any:
        name = match[1]
        if not re.match(only, name):
            return match[0]
        if name in seen:
            raise InputError(
                f"{where}: {place(path)}: ${{{name}}} refers to itself, by {' -> '.join([*seen, name])}."
            )
        return _resolved(
            whole, _looked_up(whole, name, path, where), path, where, only, (*seen, name)
        )

    alone = REFERENCE.fullmatch(value)
    return found(alone) if alone else REFERENCE.sub(lambda match: _text(found(match)), value)


def _looked_up(whole: Mapping[str, Any], name: str, path: Place, where: str) -> Any:
    steps = re.findall(r"[\w-]+", name)
    value: Any = whole
    for step in ["variables", *steps[1:]] if steps[0] == "var" else steps:
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise InputError(
                f"{where}: {place(path)}: expected what ${{{name}}} names, found nothing. Declare {step}."
            )
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
