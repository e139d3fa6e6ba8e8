"""Output fits every encoding and cannot steer the terminal. Needs no Spark."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
START = "import pathlib\nfrom pipelines import program\n"


def run(folder: Path, body: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a job with this body in its main function."""
    job = folder / "job.py"
    job.write_text(f"{START}def main(argv):\n    {body}\nprogram.run(main)\n", encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(job)],
        capture_output=True,
        env={"PYTHONPATH": str(ROOT), **variables},
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "written"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, rb"\u00e9 \u2026 \ud83d\ude00"),
        ({"PYTHONIOENCODING": "latin-1:strict"}, b"\xe9 \\u2026 \\ud83d\\ude00"),
        ({"PYTHONIOENCODING": "utf-8"}, "é … 😀".encode()),
        ({"LC_ALL": "C"}, "é … 😀".encode()),  # Python's own UTF-8 mode
    ],
)
def test_what_an_encoding_lacks_is_escaped_on_stdout_and_in_the_log(
    variables: dict[str, str], written: bytes, tmp_path: Path
) -> None:
    body = r"text = '\u00e9 \u2026 \U0001f600'; print(text); program.log.info(text)"
    done = run(tmp_path, body, **variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, written + b"\n", written + b"\n")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("program.log.info('%s: %d', '\\x1b[31ma\\nb', 7)", r"\x1b[31ma\nb: 7"),
        ("program.log.info('%s', pathlib.Path('a\\nb'))", r"a\nb"),
        ("raise ValueError('\\x1b[31m\\u202e')", r"ValueError: \x1b[31m\u202e"),
    ],
)
def test_neither_the_log_nor_a_traceback_steers_the_terminal(
    body: str, line: str, tmp_path: Path
) -> None:
    assert run(tmp_path, body).stderr.decode().splitlines()[-1] == line
