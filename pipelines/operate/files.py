"""Compare the files of a local lake with its tables' logs and with the record of its runs."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from pipelines.errors import IntegrityError
from pipelines.lake.chain import Row, title_of
from pipelines.lake.config import DELTA_LOG, LakeConfig
from pipelines.lake.delta_log import data_files_of
from pipelines.lake.links import inside
from pipelines.operate.fault import RESTORE, Fault
from pipelines.provenance import sha256_of
from schemas import TABLES


def file_faults(config: LakeConfig, rows: Sequence[Row], is_deep: bool) -> Iterator[Fault]:
    """Yield each commit or data file that is not as the run that wrote it, or the log, says.

    Compares sizes; with `is_deep` also SHA-256. A vacuum may have deleted a data file, no commit.
    """
    seen: set[str] = set()
    for row in tqdm(rows, desc="files", unit=" runs", delay=2, disable=None):
        problem = f"not the bytes that {title_of(row)} wrote"
        for file in row.get("files") or ():
            seen.add(file["path"])
            sha256 = file["sha256"] if is_deep else ""
            yield from _faults_of(config, file["path"], file["bytes"], problem, sha256)
    for table in TABLES:
        for path, n_bytes in data_files_of(table, config.log_directory(table)):
            name = path.relative_to(config.lake_path).as_posix()
            if name not in seen:
                yield from _faults_of(config, name, n_bytes, "another size than its log says")


def _faults_of(
    config: LakeConfig, name: str, n_bytes: int, problem: str, sha256: str = ""
) -> Iterator[Fault]:
    try:
        path = inside(config.lake_path, config.lake_path / name)
        if path.is_symlink():
            yield Fault(name, "a link in place of a file", RESTORE)
        elif path.stat().st_size != n_bytes or sha256 not in ("", sha256_of(path)):
            yield Fault(name, problem, RESTORE)
    except FileNotFoundError:
        if path.parent.name == DELTA_LOG:
            yield Fault(name, "missing", f"{RESTORE}, the whole directory {DELTA_LOG}")
    except IntegrityError as error:
        yield Fault(name, str(error).rstrip("."), RESTORE)
