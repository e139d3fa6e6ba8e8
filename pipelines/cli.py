"""Flags from a frozen dataclass: one field gives a flag, its default, help and MLflow param."""

import argparse
import dataclasses
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pipelines.errors import InputError

Config = TypeVar("Config")
_REQUIRED = dataclasses.MISSING


def flag(description: str, default: Any = _REQUIRED, choices: Sequence[str] = ()) -> Any:
    """Declare a field that is a flag. The default () means: the flag may be given several times."""
    metadata = {"help": description, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


def argument(description: str, default: Any = _REQUIRED, choices: Sequence[str] = ()) -> Any:
    """Declare a field that is a positional argument."""
    metadata = {"help": description, "choices": tuple(choices), "argument": True}
    return dataclasses.field(default=default, metadata=metadata)


def group(config: type[Any]) -> Any:
    """Declare a field whose own fields become flags of the same job."""
    return dataclasses.field(default_factory=config, metadata={"group": config})


def build_parser(config: type[Any], description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a job's flags."""
    script = Path(sys.argv[0])
    is_package = script.name == "__main__.py"  # as python -m pipelines.bundle
    parser = argparse.ArgumentParser(
        prog=f"python -m pipelines.{script.parent.name}" if is_package else None,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_flags(parser, config)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(
    config: type[Config],
    argv: Sequence[str] | None,
    description: str | None,
    presets: Mapping[str, Any] | None = None,
) -> Config:
    """Read argv into `config`. Raises InputError for a value that its `__post_init__` refuses.

    With --preset NAME the defaults are those of `presets[NAME]`, a dataclass; explicit flags win.
    """
    parser = build_parser(config, description)
    values = parser.parse_args(argv)
    if presets and values.preset in presets:
        parser.set_defaults(**as_params(presets[values.preset]))
        values = parser.parse_args(argv)
    return _build(config, vars(values))


def complaint(config: type[Any], argv: Sequence[str]) -> str | None:
    """Return the error with which a job would refuse these arguments; None if it accepts them."""
    parser = build_parser(config, None)

    def refuse(message: str) -> NoReturn:
        raise InputError(message)

    # argparse's own method prints the usage and ends the process.
    parser.error = refuse  # type: ignore[method-assign]
    try:
        _build(config, vars(parser.parse_args(argv)))
    except InputError as error:
        return str(error)
    return None


def as_params(config: Any) -> dict[str, Any]:
    """Return a config as flat names and values, for MLflow and for the run key."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flat |= as_params(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return flat


def from_params(config: type[Config], params: Mapping[str, str]) -> Config:
    """Return the config that `as_params` gave these params for, as text.

    Raises InputError for a missing name and for a value that the config refuses.
    """
    types = typing.get_type_hints(config)
    missing = [name for name in types if name not in params]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: missing from the run's recorded settings; it was made by older "
            "code. Check out that code: git worktree add ../then <its git.commit>."
        )
    values = {name: _value(kind, params[name]) for name, kind in types.items()}
    return _build(config, values)


def _value(kind: type[Any], text: str) -> Any:
    return text == "True" if kind is bool else kind(text)


def _add_flags(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if "group" in field.metadata:
            _add_flags(parser, field.metadata["group"])
        elif "argument" in field.metadata:
            _add_argument(parser, field)
        else:
            _add_flag(parser, field, types[field.name])


def _add_argument(parser: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
    is_required = field.default is _REQUIRED
    parser.add_argument(
        field.name,
        nargs=None if is_required else "?",
        default=None if is_required else field.default,
        choices=field.metadata["choices"] or None,
        help=field.metadata["help"],
    )


def _add_flag(
    parser: argparse.ArgumentParser, field: dataclasses.Field[Any], kind: type[Any]
) -> None:
    name = "--" + field.name.replace("_", "-")
    text = field.metadata["help"]
    is_required = field.default is _REQUIRED
    if kind is bool:
        yes_or_no = argparse.BooleanOptionalAction
        parser.add_argument(name, action=yes_or_no, default=field.default, help=text)
    elif field.default == ():
        parser.add_argument(name, action="append", default=[], metavar="NAME=VALUE", help=text)
    else:
        has_default = not is_required and field.default != ""
        parser.add_argument(
            name,
            type=kind,
            required=is_required,
            default=None if is_required else field.default,
            choices=field.metadata["choices"] or None,
            help=f"{text} (default: {field.default})" if has_default else text,
        )


def _build(config: type[Config], values: Mapping[str, Any]) -> Config:
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]  # a config is a dataclass
        own_config = field.metadata.get("group")
        chosen[field.name] = _build(own_config, values) if own_config else values[field.name]
    try:
        return config(**chosen)
    except ValueError as error:
        raise InputError(str(error)) from error
