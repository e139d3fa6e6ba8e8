"""Read a Parquet file strictly into records."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipelines.errors import InputError
from pipelines.ingest.decoding import Source
from pipelines.ingest.records import (
    Columns,
    Record,
    place_of,
    record_of,
    require_columns,
    require_rows,
)
from pipelines.quoting import shown

if TYPE_CHECKING:  # imported only where a Parquet file is read: 0.2 s that flags do not need
    import pyarrow as pa

BATCH_ROWS = 10_000


def read_parquet(source: Source, columns: Columns) -> Iterator[Record]:
    """Read the records of a Parquet file and verify the page checksums, if it has any."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row_number = 0
    try:
        with pq.ParquetFile(source.path, page_checksum_verification=True) as file:  # type: ignore[no-untyped-call]  # no stubs
            require_columns(source, file.schema_arrow.names, wanted=columns.named)
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns.named)):
                for index in range(batch.num_rows):
                    row_number += 1
                    cells = {
                        name: _cell(source, row_number, name, batch[name][index])
                        for name in columns.named
                    }
                    yield record_of(source, columns, row_number=row_number, cells=cells)
    except (pa.ArrowException, OSError) as error:
        reason = shown(str(error).splitlines()[0])
        raise InputError(f"{source.name}: damaged Parquet file: {reason}. Get it again.") from error
    require_rows(source, n_rows=row_number)


def _cell(source: Source, row_number: int, column: str, value: "pa.Scalar") -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        undecodable = f"byte 0x{error.object[error.start]:02x} at offset {error.start} of the value"
        raise source.fault(
            f"{undecodable} is not valid utf-8",
            "Write the file again with text as UTF-8.",
            place=place_of(row_number, column),
        ) from error
