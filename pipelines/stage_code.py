"""The code that decides a stage's result, as one hash: part of the key of the stage's runs.

It counts the stage's own modules, all modules of `pipelines` that they import, directly or through
others, and the parts of `schemas` that they use: contracts and constants, by their values.

Left out is the plumbing, which carries rows, files and messages but does not choose them. If a
mended fault of it must reach a finished run, --rerun repeats that run. One module of it counts:
lake.snapshot, since the order of its rows decides what a training learns. The jobs are left out
too: they are not in the wheel, and only call what is here.

The hash is the same in a checkout, in an installed wheel and in a zip, whatever the version of the
package and the line ends of its files.
"""

import ast
import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict
from functools import cache
from importlib import import_module
from pkgutil import get_data, iter_modules
from typing import Any

import pipelines
import schemas

PLUMBING = {
    *("cli", "errors", "java_noise", "lake", "program", "provenance", "quoting", "terminal"),
    "tracking",
}
COUNTED = "pipelines.lake.snapshot"


def code_sha256(stage: str, inputs: Collection[str]) -> str:
    """Return the hash of the code that turns these inputs, some of them tables, into the result."""
    modules = modules_of(stage)
    sources = {name: _source_of(name) for name in modules}
    builder = f"jobs/{stage}.py"  # as the contract of a table that it builds says
    contracts = [
        table for table in schemas.TABLES if table.name in inputs or builder in table.comment
    ]
    constants = {attribute: value for name in modules for attribute, value in _constants_of(name)}
    code = [sources, contracts, constants]
    return hashlib.sha256(json.dumps(code, default=asdict, sort_keys=True).encode()).hexdigest()


@cache
def modules_of(stage: str) -> frozenset[str]:
    """Return the stage's modules and the modules of pipelines that they import."""
    waiting = [name for name in _all_modules() if stage in name.split(".")]
    modules: set[str] = set()
    while waiting:
        module = waiting.pop()
        modules.add(module)
        imported = {
            name
            for package, attribute in _imports_of(module)
            for name in (package, f"{package}.{attribute}")
        }
        waiting += [name for name in imported - modules if _counts(name)]
    return frozenset(modules)


def _counts(module: str) -> bool:
    """Return whether this is a module of ours that is no plumbing."""
    if module not in _all_modules():
        return False
    return module == COUNTED or module.split(".")[1] not in PLUMBING


def _constants_of(module: str) -> Iterator[tuple[str, Any]]:
    """Yield name and value of what a module imports from `schemas`, without the types."""
    for package, attribute in _imports_of(module):
        if package == "schemas":
            value = getattr(schemas, attribute)
            if not isinstance(value, type):
                yield attribute, value


@cache
def _all_modules() -> frozenset[str]:
    """Return the modules of pipelines and of its rooms."""
    names = []
    for entry in iter_modules(pipelines.__path__, "pipelines."):
        room = import_module(entry.name).__path__ if entry.ispkg else []
        names += [part.name for part in iter_modules(room, f"{entry.name}.")] or [entry.name]
    return frozenset(names)


@cache
def _imports_of(module: str) -> tuple[tuple[str, str], ...]:
    """Return module and name of each `from … import …`, also of those inside functions."""
    nodes = ast.walk(ast.parse(_source_of(module)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return tuple((str(node.module), alias.name) for node in imports for alias in node.names)


@cache
def _source_of(module: str) -> str:
    file = module.removeprefix("pipelines.").replace(".", "/") + ".py"
    source = get_data("pipelines", file) or b""  # also from a zip
    return "\n".join(source.decode().splitlines())
