"""Medians, page and flags of benchmarks are right. Needs subprocesses; a slow test needs Spark."""

import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.benchmarks import __main__ as page
from tests.benchmarks import scoring, training
from tests.benchmarks.compare import Program, alternate, medians, table

HEAD = "# Benchmarks\n\nWords.\n"


def test_medians_are_taken_of_each_figure() -> None:
    runs = [{"seconds": 3.0, "x": 1.0}, {"seconds": 1.0, "x": 1.0}, {"seconds": 9.0, "x": 4.0}]
    assert medians(runs) == {"seconds": 3.0, "x": 1.0}


def test_a_section_is_replaced_in_its_place_and_a_new_one_is_added_at_the_end() -> None:
    first = page.with_section(HEAD, "One", ["a"])
    assert first == "# Benchmarks\n\nWords.\n\n## One\n\na\n"
    both = page.with_section(first, "Two", ["b"])
    assert both == first + "\n## Two\n\nb\n"
    replaced = both.replace("a\n\n## Two", "c \\1\n\n## Two")
    assert page.with_section(both, "One", ["c \\1"]) == replaced
    assert page.with_section(both, "Two", ["b"]) == both


def test_a_table_has_a_ruler_that_aligns_figures_to_the_right() -> None:
    assert table(["", "s"], [["ours", "1.0"]]) == ["|  | s |", "| --- | ---: |", "| ours | 1.0 |"]


def test_known_benchmarks_are_run_in_the_order_given_and_others_are_refused() -> None:
    assert page.BenchmarkConfig().names == list(page.BENCHMARKS)
    assert page.BenchmarkConfig(only="rerun, training").names == ["rerun", "training"]
    words = r"--only must be one or more of training, scoring, .*, got speed"
    with pytest.raises(ValueError, match=words):
        page.BenchmarkConfig(only="speed")


def test_programs_run_alternately_and_print_their_figures_in_the_last_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def command(program: Program) -> list[str]:
        order.append(program.name)
        source = f"print('words'); print('{{\"seconds\": {len(order)}}}')"
        return [sys.executable, "-c", source]

    monkeypatch.setattr(Program, "_command", property(command))
    figures_by_name = alternate([Program("a", "", []), Program("b", "", [])], runs=3)
    assert order == ["a", "b"] * 3
    seconds = {name: figures["seconds"] for name, figures in figures_by_name.items()}
    assert seconds == {"a": 3, "b": 4}
    assert set(figures_by_name["a"]) == {"seconds", "driver_mib", "jvm_mib", "workers_mib"}


def test_a_program_that_fails_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(Program, "_command", property(lambda _: failing))
    with pytest.raises(RuntimeError, match="expected exit code 0, found 3"):
        Program("a", "", []).run()


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_every_program_of_the_scoring_and_training_comparisons_runs(tmp_path: Path) -> None:
    Program("prepare", "scoring", ["prepare", str(tmp_path), "20"]).prepare()
    for program in [*scoring.programs(tmp_path), *training.programs(8)]:
        assert program.run()["seconds"] > 0
    for scores in ("udf-scores", "lake/gold/scores"):
        assert DeltaTable(tmp_path / scores).to_pyarrow_table().num_rows == 20
