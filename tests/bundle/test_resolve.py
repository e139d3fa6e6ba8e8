import textwrap
from pathlib import Path
from typing import Any

import pytest

from pipelines.bundle.resolve import load, short_name, targets_of
from pipelines.errors import InputError

BUNDLE = """
    bundle: {name: lake}
    variables:
      catalog: {description: where the tables are}
      folder: {default: /Shared}
      place: {default: "here ${var.catalog}"}
      cluster: {type: complex, default: {num_workers: 0, node_type_id: "${var.place}"}}
    resources:
      schemas:
        gold: {name: gold, catalog_name: "${var.catalog}"}
      volumes:
        landing: {name: landing, schema_name: "${resources.schemas.gold.name}", catalog_name: "${var.catalog}"}
      registered_models:
        sentiment: {name: sentiment, catalog_name: "${var.catalog}", schema_name: "${resources.schemas.gold.name}"}
      experiments:
        training: {name: "${var.folder}/${bundle.target}/training"}
      jobs:
        pipeline:
          name: "pipeline ${workspace.current_user.short_name}"
          max_retries: 1
          tags: [a]
          job_clusters:
            - {job_cluster_key: gpu, new_cluster: "${var.cluster}"}
          tasks:
            - task_key: clean
              parameters: ["--gold", "${resources.schemas.gold.name}", "{{job.parameters.x}}"]
              timeout_seconds: 10
            - task_key: train
              parameters:
                - "${resources.registered_models.sentiment.schema_name}"
                - "${resources.experiments.training.name}"
    targets:
      local: {variables: {catalog: ""}}
      dev:
        mode: development
        variables: {catalog: {default: sandbox}}
      prod:
        mode: production
        variables: {catalog: main, cluster: {default: {node_type_id: "${var.place}"}}}
        resources:
          jobs:
            pipeline:
              max_retries: 3
              tags: [b]
              tasks:
                - {task_key: train, timeout_seconds: 20}
                - {task_key: tell}
"""


def write(directory: Path, text: str = BUNDLE) -> Path:
    file = directory / "databricks.yml"
    file.write_text(textwrap.dedent(text))
    return file


def job(directory: Path, target: str, **variables: str) -> Any:
    return load(write(directory), target, variables, "Some.One@example.com")["resources"]["jobs"][
        "pipeline"
    ]


@pytest.mark.parametrize(
    ("target", "clean", "train"),
    [
        ("local", ["--gold", "gold", "{{job.parameters.x}}"], ["gold", "/Shared/local/training"]),
        (
            "dev",
            ["--gold", "dev_some_one_gold", "{{job.parameters.x}}"],
            ["dev_some_one_gold", "/Shared/dev/[dev some_one] training"],
        ),
        ("prod", ["--gold", "gold", "{{job.parameters.x}}"], ["gold", "/Shared/prod/training"]),
    ],
)
def test_each_target_gets_its_names_and_what_only_a_run_knows_stays(
    tmp_path: Path, target: str, clean: list[str], train: list[str]
) -> None:
    found = job(tmp_path, target)
    assert found["name"] == "pipeline some_one"
    assert [task.get("parameters") for task in found["tasks"]][:2] == [clean, train]


def test_a_target_overrides_values_adds_to_lists_and_finds_tasks_by_their_key(
    tmp_path: Path,
) -> None:
    before, after = job(tmp_path, "dev"), job(tmp_path, "prod")
    assert (before["max_retries"], after["max_retries"]) == (1, 3)
    assert (before["tags"], after["tags"]) == (["a"], ["a", "b"])
    assert [(task["task_key"], task.get("timeout_seconds")) for task in before["tasks"]] == [
        ("clean", 10),
        ("train", None),
    ]
    assert [(task["task_key"], task.get("timeout_seconds")) for task in after["tasks"]] == [
        ("clean", 10), ("train", 20), ("tell", None),
    ]  # fmt: skip


def test_a_reference_alone_keeps_its_type_and_one_inside_a_text_becomes_text(
    tmp_path: Path,
) -> None:
    cluster = job(tmp_path, "prod")["job_clusters"][0]["new_cluster"]
    assert cluster == {"node_type_id": "here main"}  # a target replaces a map whole
    assert job(tmp_path, "dev")["job_clusters"][0]["new_cluster"] == {
        "num_workers": 0,
        "node_type_id": "here sandbox",
    }


def test_a_volumes_path_is_what_the_workspace_would_make_of_its_names(tmp_path: Path) -> None:
    volumes = load(write(tmp_path), "dev", {}, "someone@example.com")["resources"]["volumes"]
    assert volumes["landing"]["volume_path"] == "/Volumes/sandbox/dev_someone_gold/landing"


def test_a_given_variable_comes_before_the_targets_and_the_default(tmp_path: Path) -> None:
    cluster = job(tmp_path, "prod", catalog="mine", place="there")["job_clusters"][0]["new_cluster"]
    assert cluster["node_type_id"] == "there"
    assert (
        job(tmp_path, "prod", catalog="mine")["job_clusters"][0]["new_cluster"]["node_type_id"]
        == "here mine"
    )


@pytest.mark.parametrize(
    ("text", "target", "variables", "words"),
    [
        (BUNDLE, "test", {}, r"^databricks\.yml: expected a target test, found local, dev, prod\. Pass --target\.$"),
        (BUNDLE, "dev", {"x": "1"}, r"expected one of its variables, found x\. It has catalog, folder, pl"),
        (BUNDLE.replace('catalog: ""', 'place: ""'), "local", {}, "variable catalog has no value"),
        (
            BUNDLE.replace("${var.place}", "${var.plaice}"), "dev", {},
            r"variables\.cluster\.node_type_id: expected what \$\{var\.plaice\} names, found nothing\. Declare pl",
        ),
        (
            BUNDLE.replace("here ${var.catalog}", "${var.cluster.node_type_id}"), "dev", {},
            r"\$\{var\.\S+\} refers to itself, by var\.\S+ -> var\.\S+ -> var\.\S+\.",
        ),
        ("a: [", "dev", {}, r"^databricks\.yml: expected YAML, found "),
        ("- a", "dev", {}, r"^databricks\.yml: expected a mapping with bundle, resources and targets, found none\."),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_with_its_place(
    tmp_path: Path, text: str, target: str, variables: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load(write(tmp_path, text), target, variables, "someone")


def test_a_missing_definition_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"databricks\.yml: expected the bundle's definition, found No such file"
    ):
        load(tmp_path / "databricks.yml", "dev", {}, "someone")
    assert targets_of(write(tmp_path)) == ["local", "dev", "prod"]


@pytest.mark.parametrize(
    ("user", "short"),
    [("some.one@example.com", "some_one"), ("root", "root"), ("A-b+.c_@x", "a_b_c")],
)
def test_a_user_s_short_name_is_what_goes_into_names(user: str, short: str) -> None:
    assert short_name(user) == short
