"""Systematic changes to the directory of a logged model, each with the outcome that is right.

Foreign code in them creates the canary file. Needs no Spark.
"""

import importlib.util
import json
import marshal
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REFUSED, SAME = "refused", "the same scores"
CODE = "classifier.py"
PACKAGES = ("torch", "transformers", "mlflow", "numpy", "pandas", "safetensors", "tokenizers")


@dataclass(frozen=True)
class Mutation:
    """A change of a model's directory, and its right outcome: REFUSED or SAME."""

    name: str
    outcome: str
    change: Callable[[Path], object]


@dataclass(frozen=True)
class Places:
    """What the changes use: a sound copy, another version of the model, a folder, the canary."""

    sound: Path
    other: Path
    aside: Path
    canary: Path

    @property
    def attack(self) -> str:
        """Python source that creates the canary."""
        return f"open({str(self.canary)!r}, 'w').close()\n"


def mutations(places: Places, seed: int = 0) -> Iterator[Mutation]:
    """Yield every mutation; `change` gets a fresh copy of `places.sound`."""
    files = sorted(
        file.relative_to(places.sound).as_posix()
        for file in places.sound.rglob("*")
        if file.is_file()
    )
    for number, path in enumerate(files):
        neighbour = files[(number + 1) % len(files)]
        yield from of_one_file(places, path, neighbour, random.Random(f"{seed} {path}"))
    yield from of_folders(places)
    yield from of_bytecode(places)
    yield from of_extra_code(places)
    yield from of_settings(places)


def of_one_file(
    places: Places, path: str, neighbour: str, rng: random.Random
) -> Iterator[Mutation]:
    """Yield the mutations of one file of the model."""
    content = (places.sound / path).read_bytes()
    at = rng.randrange(len(content))
    flipped = bytearray(content)
    flipped[at] ^= 1 << rng.randrange(8)
    in_other = (places.other / path).read_bytes()
    new_contents = {
        f"byte {at} flipped": bytes(flipped),
        "first byte flipped": bytes([content[0] ^ 1]) + content[1:],
        "last byte flipped": content[:-1] + bytes([content[-1] ^ 128]),
        "truncated by one byte": content[:-1],
        "truncated to a half": content[: len(content) // 2],
        "appended": content + b"\n",
        "doubled": content * 2,
        "emptied": b"",
        "zeros of the same size": bytes(len(content)),
        "content of another file": (places.sound / neighbour).read_bytes(),
        "of another version": in_other,
        "written again": content,
    }
    for what, new in new_contents.items():
        outcome = SAME if new == content else REFUSED

        def write(model: Path, new: bytes = new) -> None:
            (model / path).write_bytes(new)

        yield Mutation(f"{path}: {what}", outcome, write)

    def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def change(model: Path) -> None:
            (model / path).unlink()
            make(model / path)

        return change

    link_targets: dict[str, Path | str] = {
        "same content outside": places.sound / path,
        "other content outside": places.other / path,
        "a device": Path("/dev/zero"),
        "nothing": places.aside / "absent",
        "itself": Path(path).name,
    }
    for what, target in link_targets.items():

        def link_to(file: Path, target: Path | str = target) -> None:
            file.symlink_to(target)

        yield Mutation(f"{path}: a link to {what}", REFUSED, replaced(link_to))
    yield Mutation(f"{path}: deleted", REFUSED, replaced(lambda _: None))
    yield Mutation(f"{path}: a directory", REFUSED, replaced(Path.mkdir))
    yield Mutation(f"{path}: a FIFO", REFUSED, replaced(os.mkfifo))
    yield Mutation(
        f"{path}: a hard link to the same content",
        SAME,
        replaced(lambda file: os.link(places.sound / path, file)),
    )

    def renamed(model: Path) -> None:
        (model / path).rename(model / f"{path}.bak")

    def link_inside(model: Path) -> None:
        renamed(model)
        (model / path).symlink_to(f"{Path(path).name}.bak")

    def swapped(model: Path) -> None:
        (model / path).rename(model / "swap")
        (model / neighbour).rename(model / path)
        (model / "swap").rename(model / neighbour)

    def huge(model: Path) -> None:
        os.truncate(model / path, 1 << 40)  # sparse: to read it would take hours

    yield Mutation(f"{path}: renamed", REFUSED, renamed)
    yield Mutation(f"{path}: a link to its own bytes in the model", REFUSED, link_inside)
    yield Mutation(f"{path}: swapped with {neighbour}", REFUSED, swapped)
    yield Mutation(f"{path}: a terabyte", REFUSED, huge)


def of_folders(places: Places) -> Iterator[Mutation]:
    """Yield links in place of directories, and directories of another version."""
    for folder in ("artifacts", "artifacts/model", "."):
        for what, source in (("same", places.sound), ("other", places.other)):

            def link(model: Path, folder: str = folder, source: Path = source) -> None:
                shutil.rmtree(model / folder)
                (model / folder).symlink_to(source / folder)

            yield Mutation(f"{folder}: a link to the {what} content", REFUSED, link)

    def moved(model: Path) -> None:
        (model / "artifacts/model").rename(model / "model")
        (model / "artifacts/model").symlink_to("../model")

    def other_weights(model: Path) -> None:
        shutil.rmtree(model / "artifacts")
        shutil.copytree(places.other / "artifacts", model / "artifacts")

    yield Mutation("artifacts/model: a link within the model", REFUSED, moved)
    yield Mutation("artifacts: those of another version", REFUSED, other_weights)


def bytecode(model: Path, attack: str, *, flags: int = 0) -> bytes:
    """Return bytecode of `attack` that Python takes for that of the model's code.

    flags   0: valid for the source's time and size; 1: never compared with the source
    """
    status = (model / CODE).stat()
    header = int(status.st_mtime).to_bytes(4, "little") + status.st_size.to_bytes(4, "little")
    code = marshal.dumps(compile(attack, CODE, "exec"))
    magic = importlib.util.MAGIC_NUMBER
    return magic + flags.to_bytes(4, "little") + (header if flags == 0 else bytes(8)) + code


def cached_name(model: Path) -> Path:
    """Return the place of the bytecode of the model's code, without PYTHONPYCACHEPREFIX."""
    stem = CODE.removesuffix(".py")
    return model / "__pycache__" / f"{stem}.{sys.implementation.cache_tag}.pyc"


def of_bytecode(places: Places) -> Iterator[Mutation]:
    """Yield prepared bytecode beside the model's code; plain MLflow runs each of them."""
    for flags, what in ((0, "valid for the source"), (1, "that is never compared")):

        def plant(model: Path, flags: int = flags) -> None:
            cached_name(model).parent.mkdir()
            cached_name(model).write_bytes(bytecode(model, places.attack, flags=flags))

        def plant_by_link(
            model: Path, plant: Callable[[Path], None] = plant, flags: int = flags
        ) -> None:
            plant(model)
            elsewhere = places.aside / f"cache-{flags}"
            shutil.rmtree(elsewhere, ignore_errors=True)
            cached_name(model).parent.rename(elsewhere)
            (model / "__pycache__").symlink_to(elsewhere)

        def plant_file_link(
            model: Path, plant: Callable[[Path], None] = plant, flags: int = flags
        ) -> None:
            plant(model)
            elsewhere = places.aside / f"{flags}.pyc"
            cached_name(model).replace(elsewhere)
            cached_name(model).symlink_to(elsewhere)

        yield Mutation(f"__pycache__ with bytecode {what}", SAME, plant)
        yield Mutation(f"__pycache__ is a link to bytecode {what}", SAME, plant_by_link)
        yield Mutation(f"__pycache__ has a link to bytecode {what}", SAME, plant_file_link)


def of_extra_code(places: Places) -> Iterator[Mutation]:
    """Yield code and other entries that are added beside the model's files."""
    added = ["sitecustomize.py", "usercustomize.py", "conftest.py", "pipelines.py", "evil.pth"]
    added += [f"{package}.py" for package in PACKAGES]
    added += [f"{package}/__init__.py" for package in PACKAGES]
    added += [f"code/{package}/__init__.py" for package in PACKAGES]
    added += ["code/sitecustomize.py", "artifacts/model/modeling.py", "artifacts/model/torch.py"]
    added += ["artifacts/model/pytorch_model.bin", "artifacts/model/adapter_config.json"]
    added += ["artifacts/model/special_tokens_map.json", "artifacts/evil.py", "python_model.pkl"]
    added += ["setup.py", "pyproject.toml", ".env", "loader.py", "a\nb.py", "registered_model_meta"]
    for path in added:

        def add(model: Path, path: str = path) -> None:
            (model / path).parent.mkdir(parents=True, exist_ok=True)
            (model / path).write_text(places.attack, encoding="utf-8")

        yield Mutation(f"{path!r}: added", SAME, add)
    for path in ("registered_model_meta", "code", "extra", "artifacts/model/extra.safetensors"):

        def add_link(model: Path, path: str = path) -> None:
            (model / path).symlink_to(places.other)

        yield Mutation(f"{path}: an added link", SAME, add_link)
    yield Mutation("an added FIFO", SAME, lambda model: os.mkfifo(model / "pipe"))


def of_settings(places: Places) -> Iterator[Mutation]:
    """Yield edits of MLmodel and of the model's settings that name other code or other scores."""
    edits = {
        "loader module": ("MLmodel", "mlflow.pyfunc.loaders.code_model", "evil"),
        "code path": ("MLmodel", "code: null", "code: code"),
        "code of another directory": ("MLmodel", "code: null", f"code: {places.aside}"),
        "model code path": ("MLmodel", f"/{CODE}", "/evil.py"),
        "path of the artifacts": ("MLmodel", "path: artifacts/model", f"path: {places.other}"),
        "pip requirement": ("requirements.txt", "mlflow==", "evil\nmlflow=="),
        "conda dependency": ("conda.yaml", "- pip:", "- pip:\n  - evil"),
        "label names": ("artifacts/model/config.json", '"0": "negative"', '"0": "positive"'),
        "precision": ("artifacts/model/policy.json", '"fp32"', '"bf16"'),
        "threshold": ("artifacts/model/policy.json", '"threshold": 0.5', '"threshold": 0.9'),
        "temperature": ("artifacts/model/policy.json", '"temperature": 1.0', '"temperature": 9.0'),
        "lower case": ("artifacts/model/tokenizer.json", '"lowercase": true', '"lowercase": false'),
    }
    for what, (path, before, after) in edits.items():

        def edit(model: Path, path: str = path, before: str = before, after: str = after) -> None:
            text = (model / path).read_text(encoding="utf-8")
            assert before in text, (path, before)
            (model / path).write_text(text.replace(before, after), encoding="utf-8")
            (model / "evil.py").write_text(places.attack, encoding="utf-8")

        yield Mutation(f"{path}: other {what}", REFUSED, edit)

    def own_code(model: Path) -> None:
        config = model / "artifacts/model/config.json"
        settings = json.loads(config.read_text(encoding="utf-8"))
        settings["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model"}
        config.write_text(json.dumps(settings), encoding="utf-8")
        (config.parent / "evil.py").write_text(places.attack, encoding="utf-8")

    def attack_in_code(model: Path) -> None:
        with (model / CODE).open("a", encoding="utf-8") as code:
            code.write(f"\n{places.attack}")

    yield Mutation("config.json: auto_map with a module", REFUSED, own_code)
    yield Mutation(f"{CODE}: a line that runs code", REFUSED, attack_in_code)
