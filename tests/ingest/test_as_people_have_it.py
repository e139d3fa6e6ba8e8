"""Files as people have them are read rightly, or refused with what to do. One needs Spark."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jobs import clean, ingest
from pipelines.errors import ContractError
from pipelines.ingest.sources import Delivery
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.provenance import sha256_of
from schemas import OPS_RUNS, SILVER_REJECTS, SILVER_REVIEWS
from tests.support.delivered import staged_delivery

STARS = "text,label\n" + "".join(f"rated {n},{n}\n" for n in range(1, 11))
WARM, DULL = "A warm, funny film.", "Dull from the first minute."


def delivered(folder: Path, source: str, content: bytes, **flags: Any) -> list[tuple[str, str]]:
    """Return text and meaning of the label of each row of a delivered file."""
    path = folder / "delivered"
    path.write_bytes(content)
    delivery = Delivery(source, (str(path),), name="shop", **flags)
    with staged_delivery(delivery, path, sha256_of(path), folder / "landing") as staged:
        rows = pd.read_parquet(staged.parquet)
    return list(zip(rows["raw_text"], rows["label_meaning"], strict=True))


def lines_of(*labels: object) -> bytes:
    return "\n".join(json.dumps({"text": "a", "label": label}) for label in labels).encode()


POLAR = [(WARM, "positive"), (DULL, "negative")]
ROWS_OF_POLAR = [{"text": WARM, "label": 1}, {"text": DULL, "label": 0}]
CSV_OF_POLAR = f'text,label\n"{WARM}",1\n{DULL},0\n'


@pytest.mark.parametrize(
    ("source", "content", "flags", "expected"),
    [
        (  # the index of pandas has no name
            "csv",
            f',review,sentiment\n0,"{WARM}",positive\n1,{DULL},negative\n'.encode(),
            {"text_column": "review", "label_column": "sentiment"},
            POLAR,
        ),
        (  # no flag names the nameless column
            "csv",
            f',review\n1,"{WARM}"\n0,{DULL}\n'.encode(),
            {"text_column": "review"},
            [(WARM, "unlabelled"), (DULL, "unlabelled")],
        ),
        (
            "csv",
            f'v1,v2,,,\nneg,{DULL},,,\npos,"{WARM}",,,\n'.encode(),
            {"text_column": "v2", "label_column": "v1"},
            POLAR[::-1],
        ),
        (
            "csv",
            b'id\tsentiment\treview\n"1_8"\t1\t"A \\"funny\\" film,\tagain."\n"2_3"\t0\t"Dull."\n',
            {
                "text_column": "review",
                "label_column": "sentiment",
                "delimiter": "tab",
                "escape": "\\",
            },
            [('A "funny" film,\tagain.', "positive"), ("Dull.", "negative")],
        ),
        (
            "csv",
            f"review;sentiment\n{WARM};positive\n{DULL};negative\n".encode(),
            {"text_column": "review", "label_column": "sentiment", "delimiter": ";"},
            POLAR,
        ),
        (
            "csv",
            CSV_OF_POLAR.replace("text", "Text ").encode(),
            {"text_column": "Text ", "label_column": "label"},
            POLAR,
        ),
        ("csv", gzip.compress(CSV_OF_POLAR.encode(), mtime=0), {"label_column": "label"}, POLAR),
        ("jsonl", json.dumps(ROWS_OF_POLAR).encode(), {"label_column": "label"}, POLAR),
        (
            "jsonl",
            lines_of(-1, -1, None),
            {"label_column": "label"},
            [("a", "unlabelled")] * 3,
        ),
        (
            "jsonl",
            lines_of(True, False, float("nan"), " 1\u00a0", "\tNeg"),
            {"label_column": "label"},
            [
                ("a", meaning)
                for meaning in ("positive", "negative", "unlabelled", "positive", "negative")
            ],
        ),
        (
            "csv",
            STARS.encode(),
            {"label_column": "label", "label_map": "1-4=negative,7-10=positive"},
            [
                (f"rated {n}", "negative" if n < 5 else "unknown" if n < 7 else "positive")
                for n in range(1, 11)
            ],
        ),
        (
            "jsonl",
            lines_of(-1, 0, 1),
            {"label_column": "label", "label_map": "-1=negative,0=neutral,1=positive"},
            [("a", "negative"), ("a", "neutral"), ("a", "positive")],
        ),
    ],
)
def test_a_file_of_a_usual_kind_is_read_with_its_meaning(
    tmp_path: Path,
    source: str,
    content: bytes,
    flags: dict[str, str],
    expected: list[tuple[str, str]],
) -> None:
    assert delivered(tmp_path, source, content, **flags) == expected


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        (
            "csv",
            STARS.encode(),
            r"delivered, column label: expected labels of one scheme .* found 1 \(1\), 2 \(1\), .*"
            r"10 \(1\)\. .* --label-map '1-4=negative,7-10=positive'",
        ),
        (
            "jsonl",
            lines_of(-1, 0, 1),
            r"delivered, column label: the labels -1 \(1\), 0 \(1\), 1 \(1\) belong to two schemes",
        ),
        ("csv", CSV_OF_POLAR.replace(",", ";").encode(), r"Pass --delimiter ';'\.$"),
        ("csv", CSV_OF_POLAR.replace("text", "Text ").encode(), r"Did you mean 'Text '\?"),
    ],
)
def test_a_file_that_cannot_be_read_rightly_is_refused_with_what_to_do(
    tmp_path: Path, source: str, content: bytes, message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        delivered(tmp_path, source, content, label_column="label")
    assert list((tmp_path / "landing").iterdir()) == []


def test_the_map_of_the_labels_is_recorded_and_labels_outside_it_become_rejects(
    store: TableStore, lake: LakeConfig, tmp_path: Path
) -> None:
    stars = tmp_path / "stars.csv"
    stars.write_text(STARS)
    label_map = "1-4=negative,5=neutral,7-10=positive"
    flags = ["--source", "csv", "--path", str(stars), "--name", "shop", "--label-column", "label"]
    ingest.main([*flags, "--label-map", label_map, "--lake", lake.lake])
    clean.main(["--lake", lake.lake])
    labels = store.read(SILVER_REVIEWS).select("text", "label").collect()
    assert {row.text: row.label for row in labels} == {
        f"rated {n}": int(n > 6) for n in range(1, 11) if n not in (5, 6)
    }
    rejects = store.read(SILVER_REJECTS).select("row_number", "failed_rules").collect()
    assert {row.row_number: row.failed_rules for row in rejects} == {
        5: ["label_is_polar"],
        6: ["label_is_known"],
    }
    [run] = store.read(OPS_RUNS).where("stage = 'ingest'").collect()
    assert json.loads(run.config)["label_map"] == label_map
