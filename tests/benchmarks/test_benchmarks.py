"""The benchmarks' arithmetic and their page. What they measure is timed by `make bench`, never here."""

import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.benchmarks import __main__ as page
from tests.benchmarks import scoring, training
from tests.benchmarks.compare import Program, alternate, medians, table

HEAD = "# Benchmarks\n\nWords.\n"


def test_the_median_of_each_figure_counts() -> None:
    assert medians([{"seconds": 3.0, "x": 1.0}, {"seconds": 1.0, "x": 1.0}, {"seconds": 9.0, "x": 4.0}]) == {
        "seconds": 3.0, "x": 1.0
    }  # fmt: skip


def test_a_section_is_replaced_in_its_place_and_a_new_one_comes_last() -> None:
    first = page.with_section(HEAD, "One", ["a"])
    assert first == "# Benchmarks\n\nWords.\n\n## One\n\na\n"
    both = page.with_section(first, "Two", ["b"])
    assert both == first + "\n## Two\n\nb\n"
    assert page.with_section(both, "One", ["c \\1"]) == both.replace(
        "a\n\n## Two", "c \\1\n\n## Two"
    )
    assert page.with_section(both, "Two", ["b"]) == both


def test_a_table_has_a_ruler_and_its_figures_stand_to_the_right() -> None:
    assert table(["", "s"], [["ours", "1.0"]]) == ["|  | s |", "| --- | ---: |", "| ours | 1.0 |"]


def test_only_known_benchmarks_are_run_in_the_order_given() -> None:
    assert page.BenchmarkConfig().names == list(page.BENCHMARKS)
    assert page.BenchmarkConfig(only="rerun, training").names == ["rerun", "training"]
    with pytest.raises(ValueError, match=r"--only must be of training, scoring, .*, got speed"):
        page.BenchmarkConfig(only="speed")


def test_programs_take_turns_and_what_each_prints_last_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def said(program: Program) -> list[str]:
        order.append(program.name)
        return [sys.executable, "-c", f"print('words'); print('{{\"seconds\": {len(order)}}}')"]

    monkeypatch.setattr(Program, "_command", property(said))
    found = alternate([Program("a", "", []), Program("b", "", [])], runs=3)
    assert order == ["a", "b"] * 3
    assert {name: figures["seconds"] for name, figures in found.items()} == {"a": 3, "b": 4}
    assert set(found["a"]) == {"seconds", "driver_mib", "jvm_mib", "workers_mib"}


def test_a_program_that_fails_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Program, "_command", property(lambda _: [sys.executable, "-c", "raise SystemExit(3)"])
    )
    with pytest.raises(RuntimeError, match="expected exit code 0, found 3"):
        Program("a", "", []).run()


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_every_program_of_the_scoring_and_training_comparisons_runs(tmp_path: Path) -> None:
    Program("prepare", "scoring", ["prepare", str(tmp_path), "20"]).prepare()
    for program in [*scoring.programs(tmp_path), *training.programs(8)]:
        assert program.run()["seconds"] > 0
    scores = {
        name: DeltaTable(tmp_path / name).to_pyarrow_table().num_rows
        for name in ("udf-scores", "lake/gold/scores")
    }
    assert scores == {"udf-scores": 20, "lake/gold/scores": 20}
