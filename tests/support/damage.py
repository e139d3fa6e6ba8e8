"""Change a data file of a table behind Delta's back."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

Change = Callable[[pd.DataFrame], pd.DataFrame]


def without_side_file(file: Path) -> Path:
    """Delete Hadoop's checksum of a file: a copied or restored lake has none."""
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    return file


def rewrite(file: Path, change: Change) -> None:
    """Replace the rows of a Parquet file; the types stay."""
    rows = pd.read_parquet(file, dtype_backend="pyarrow")
    change(rows).to_parquet(without_side_file(file), index=False)


def invert_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn each label into the other one."""
    return rows.assign(label=(1 - rows["label"]).astype(rows["label"].dtype))
