"""Flags from a frozen dataclass: one field gives a flag, its default, rule, help and MLflow param.

A value is checked when it is read, before anything starts. A field's default is always valid.
"""

import argparse
import dataclasses
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pipelines import flag_rules
from pipelines.errors import InputError
from pipelines.flag_rules import Rule
from pipelines.quoting import quoted, shown

Config = TypeVar("Config")
_REQUIRED = dataclasses.MISSING
MAX_CHARACTERS = 500  # maximum length of argparse's message, which quotes what was given


def flag(
    description: str,
    default: Any = _REQUIRED,
    choices: Sequence[str] = (),
    must_be: Rule | None = None,
) -> Any:
    """Declare a field that is a flag. The default () means: the flag may be given several times."""
    metadata = {"help": description, "choices": tuple(choices), "must_be": must_be}
    return dataclasses.field(default=default, metadata=metadata)


def argument(
    description: str,
    default: Any = _REQUIRED,
    choices: Sequence[str] = (),
    must_be: Rule | None = None,
) -> Any:
    """Declare a field that is a positional argument."""
    metadata = flag(description, default, choices, must_be).metadata
    return dataclasses.field(default=default, metadata={**metadata, "argument": True})


def group(config: type[Any]) -> Any:
    """Declare a field whose own fields become flags of the same job."""
    return dataclasses.field(default_factory=config, metadata={"group": config})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise InputError; argparse's own method prints the usage too, and ends the process."""
        raise InputError(f"{shown(message, MAX_CHARACTERS)}. --help lists the flags.")


def build_parser(config: type[Any], description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a job's flags. It reads texts; `_build` turns them into values."""
    script = Path(sys.argv[0])
    is_package = script.name == "__main__.py"  # as python -m pipelines.bundle
    parser = _Parser(
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
    """Read argv into `config`. Raises InputError for a value that the config refuses.

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
    try:
        parse(config, argv, None)
    except InputError as error:
        return str(error)
    return None


def check_values(config: Any) -> None:
    """Raise ValueError unless each value of a config keeps its field's rule.

    `parse` and `from_params` do this themselves; a config that is made in code can call it.
    """
    types = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if "group" not in field.metadata:
            _checked(field, types[field.name], getattr(config, field.name))


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
    missing = [name for name in typing.get_type_hints(config) if name not in params]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: missing from the run's recorded settings; it was made by older "
            "code. Check out that code: git worktree add ../then <its git.commit>."
        )
    return _build(config, params)


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
        word = "PATH" if field.name == "path" else "NAME=VALUE"
        parser.add_argument(name, action="append", default=[], metavar=word, help=text)
    else:
        has_default = not is_required and field.default != ""
        parser.add_argument(
            name,
            required=is_required,
            default=None if is_required else field.default,
            choices=field.metadata["choices"] or None,
            help=f"{text} (default: {field.default})" if has_default else text,
        )


def _build(config: type[Config], values: Mapping[str, Any]) -> Config:
    types = typing.get_type_hints(config)
    chosen: dict[str, Any] = {}
    try:
        for field in dataclasses.fields(config):  # type: ignore[arg-type]  # a config is a dataclass
            own_config = field.metadata.get("group")
            if own_config:
                chosen[field.name] = _build(own_config, values)
            else:
                chosen[field.name] = _checked(field, types[field.name], values[field.name])
        return config(**chosen)
    except ValueError as error:
        raise InputError(str(error)) from error


def _checked(field: dataclasses.Field[Any], kind: type[Any], given: Any) -> Any:
    """Return a field's value, read from text if need be. Raises ValueError if it breaks a rule."""
    if given == field.default:
        return given
    if kind not in flag_rules.READERS:  # a flag that may be given several times
        return tuple(_checked_one(field, str, part) for part in given)
    return _checked_one(field, kind, given)


def _checked_one(field: dataclasses.Field[Any], kind: type[Any], given: Any) -> Any:
    if given == []:
        given = "--"  # argparse loses the value of --flag=--
    rule = field.metadata.get("must_be") or flag_rules.DEFAULTS[kind]
    value = flag_rules.READERS[kind](given) if isinstance(given, str) else given
    if value is not None and rule.accepts(value):
        return value
    type_words = flag_rules.TYPE_WORDS.get(kind, "") if value is None else ""
    name = field.name if "argument" in field.metadata else "--" + field.name.replace("_", "-")
    read = given if value is None else value
    raise ValueError(f"{name} must be {type_words}{rule.words}, got {quoted(read)}")
