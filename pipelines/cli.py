"""Flags from a frozen dataclass, and errors to one line and an exit code."""

import argparse
import dataclasses
import logging
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from pipelines.errors import InputError

Config = TypeVar("Config")
_REQUIRED = dataclasses.MISSING
log = logging.getLogger("reviewlake")


def flag(description: str, default: Any = _REQUIRED, choices: Sequence[str] = ()) -> Any:
    """A dataclass field that is also a flag: the field's name, this default, this help; a tuple may come repeatedly."""
    return dataclasses.field(
        default=default, metadata={"help": description, "choices": tuple(choices)}
    )


def argument(description: str, default: Any = _REQUIRED, choices: Sequence[str] = ()) -> Any:
    """A dataclass field that is given by its place on the command line, without a flag's name."""
    return dataclasses.field(
        default=default, metadata={"help": description, "argument": True, "choices": tuple(choices)}
    )


def group(config: type[Any]) -> Any:
    """A dataclass field whose own fields become flags of the same job."""
    return dataclasses.field(default_factory=config, metadata={"group": config})


def build_parser(config: type[Any], description: str | None) -> argparse.ArgumentParser:
    """The parser of a job, so that a test or a bundle check can ask which flags exist."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_flags(parser, config)
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    return parser


def parse(
    config: type[Config],
    argv: Sequence[str] | None,
    description: str | None,
    presets: Mapping[str, Any] | None = None,
) -> Config:
    """Read argv into `config`; a value out of range raises InputError, as `__post_init__` words it.

    With --preset NAME the defaults are those of `presets[NAME]`, a dataclass; a flag given all the same wins.
    """
    parser = build_parser(config, description)
    values = parser.parse_args(argv)
    if presets and values.preset in presets:
        parser.set_defaults(**as_params(presets[values.preset]))
        values = parser.parse_args(argv)
    return _build(config, vars(values))


def complaint(config: type[Any], argv: Sequence[str]) -> str | None:
    """What a job would say of these arguments before it starts; None where it takes them."""
    parser = build_parser(config, None)

    def refuse(message: str) -> NoReturn:
        raise InputError(message)

    parser.error = refuse  # type: ignore[method-assign]  # else argparse prints its usage and ends the process
    try:
        _build(config, vars(parser.parse_args(argv)))
    except InputError as error:
        return str(error)
    return None


def as_params(config: Any) -> dict[str, Any]:
    """A config as flat names and values: what is logged, and what a run key is made of."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flat |= as_params(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return flat


def from_params(config: type[Config], params: Mapping[str, str]) -> Config:
    """A config from what `as_params` gave, as text; raises InputError for a value that it does not take."""
    types = typing.get_type_hints(config)
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    if missing := [name for name in names if name not in params]:
        raise InputError(
            f"{', '.join(missing)}: expected among the recorded settings, found not: the run is of older code, which "
            "had no such setting. Run it by the code of then: git worktree add ../then <its git.commit>."
        )
    values = {
        name: params[name] == "True" if types[name] is bool else types[name](params[name])
        for name in names
    }
    return _build(config, values)


def _add_flags(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if "group" in field.metadata:
            _add_flags(parser, field.metadata["group"])
            continue
        if "argument" in field.metadata:
            is_optional = (
                {"nargs": "?", "default": field.default} if field.default is not _REQUIRED else {}
            )
            choices = field.metadata["choices"] or None
            parser.add_argument(
                field.name, help=field.metadata["help"], choices=choices, **is_optional
            )
            continue
        name, text = "--" + field.name.replace("_", "-"), field.metadata["help"]
        if types[field.name] is bool:
            parser.add_argument(
                name, action=argparse.BooleanOptionalAction, default=field.default, help=text
            )
            continue
        if field.default == ():
            parser.add_argument(name, action="append", default=[], metavar="NAME=VALUE", help=text)
            continue
        is_required = field.default is _REQUIRED
        parser.add_argument(
            name,
            type=types[field.name],
            required=is_required,
            default=None if is_required else field.default,
            choices=field.metadata["choices"] or None,
            help=text
            if is_required or field.default == ""
            else f"{text} (default: {field.default})",
        )


def _build(config: type[Config], values: dict[str, Any]) -> Config:
    chosen = {
        field.name: _build(field.metadata["group"], values)
        if "group" in field.metadata
        else values[field.name]
        for field in dataclasses.fields(config)  # type: ignore[arg-type]  # every config is a dataclass
    }
    try:
        return config(**chosen)
    except ValueError as error:
        raise InputError(str(error)) from error
