"""databricks.yml for one target: overrides, prefixes, references, refusals. Needs no Spark."""

import json
import re
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
        landing:
          name: landing
          schema_name: "${resources.schemas.gold.name}"
          catalog_name: "${var.catalog}"
      registered_models:
        sentiment:
          name: sentiment
          schema_name: "${resources.schemas.gold.name}"
          catalog_name: "${var.catalog}"
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
    definition = load(write(directory), target, variables=variables, user="Some.One@example.com")
    return definition["resources"]["jobs"]["pipeline"]


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
def test_each_target_gets_its_names_and_names_that_only_a_run_knows_stay(
    tmp_path: Path, target: str, clean: list[str], train: list[str]
) -> None:
    pipeline = job(tmp_path, target)
    assert pipeline["name"] == "pipeline some_one"
    assert [task.get("parameters") for task in pipeline["tasks"]][:2] == [clean, train]


def timeouts(pipeline: Any) -> list[tuple[str, int | None]]:
    return [(task["task_key"], task.get("timeout_seconds")) for task in pipeline["tasks"]]


def test_a_target_overrides_values_adds_to_lists_and_finds_tasks_by_their_key(
    tmp_path: Path,
) -> None:
    dev, prod = job(tmp_path, "dev"), job(tmp_path, "prod")
    assert (dev["max_retries"], prod["max_retries"]) == (1, 3)
    assert (dev["tags"], prod["tags"]) == (["a"], ["a", "b"])
    assert timeouts(dev) == [("clean", 10), ("train", None)]
    assert timeouts(prod) == [("clean", 10), ("train", 20), ("tell", None)]


def test_a_reference_alone_keeps_its_type_and_one_inside_a_text_becomes_text(
    tmp_path: Path,
) -> None:
    prod = job(tmp_path, "prod")["job_clusters"][0]["new_cluster"]
    assert prod == {"node_type_id": "here main"}  # a target replaces a mapping as a whole
    dev = job(tmp_path, "dev")["job_clusters"][0]["new_cluster"]
    assert dev == {"num_workers": 0, "node_type_id": "here sandbox"}


def test_a_boolean_variable_is_written_as_the_cli_writes_it(tmp_path: Path) -> None:
    text = BUNDLE.replace("folder: {default: /Shared}", "folder: {default: true}")
    definition = load(write(tmp_path, text), "prod", variables={}, user="someone")
    training = definition["resources"]["experiments"]["training"]
    assert training["name"] == "true/prod/training"


def test_a_prefix_goes_behind_a_folder_that_comes_from_a_variable(tmp_path: Path) -> None:
    text = BUNDLE.replace("${var.folder}/${bundle.target}/training", "${var.folder}")
    variables = {"folder": "/Users/${workspace.current_user.userName}/x"}
    definition = load(write(tmp_path, text), "dev", variables=variables, user="me@example.com")
    resources = definition["resources"]
    assert resources["experiments"]["training"]["name"] == "/Users/me@example.com/[dev me] x"
    names = resources["jobs"]["pipeline"]["tasks"][1]["parameters"]
    assert names == ["dev_me_gold", "/Users/me@example.com/[dev me] x"]


def test_a_volumes_path_is_the_one_that_the_workspace_would_compute(tmp_path: Path) -> None:
    definition = load(write(tmp_path), "dev", variables={}, user="someone@example.com")
    landing = definition["resources"]["volumes"]["landing"]
    assert landing["volume_path"] == "/Volumes/sandbox/dev_someone_gold/landing"


def test_a_given_variable_comes_before_the_targets_and_the_default(tmp_path: Path) -> None:
    for variables, expected in (
        ({"catalog": "mine", "place": "there"}, "there"),
        ({"catalog": "mine"}, "here mine"),
    ):
        cluster = job(tmp_path, "prod", **variables)["job_clusters"][0]["new_cluster"]
        assert cluster["node_type_id"] == expected


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "${var.place}",
            "${var.plaice}",
            r"^databricks\.yml: variables\.cluster\.node_type_id: Interpolation key 'var\.plaice' "
            r"not found\. Correct it there\.$",
        ),
        (
            "here ${var.catalog}",
            "${var.cluster.node_type_id}",
            r"^databricks\.yml: variables\.cluster\.node_type_id: Recursive interpolation "
            r"detected\. Correct it there\.$",
        ),
        (
            '"${resources.experiments.training.name}"',
            "a ${resources.experiments.training.nam} b",
            r"^databricks\.yml: resources\.jobs\.pipeline\.tasks\[1\]\.parameters\[1\]: "
            r"Interpolation key 'resources\.experiments\.training\.nam' not found\. Correct it",
        ),
    ],
)
@pytest.mark.parametrize("target", ["dev", "local"])
def test_an_undefined_or_circular_reference_is_named_with_its_place(
    tmp_path: Path, target: str, old: str, new: str, words: str
) -> None:
    file = write(tmp_path, BUNDLE.replace(old, new))
    with pytest.raises(InputError, match=words):
        load(file, target, variables={}, user="someone")


@pytest.mark.parametrize(
    "reference",
    [
        "${oc.env:PATH}",
        "${oc.env:HOME,x}",
        "${oc.create:'{a: 1}'}",
        "${oc.select:bundle.name}",
        "a ${bundle.name} ${oc.decode:'1'} b",
        "${var.${bundle.target}}",
        "${.name}",
        "${..name}",
        r"\${bundle.name}",
        "${}",
        "${bundle.name",
    ],
)
def test_functions_and_other_references_of_omegaconf_are_refused(
    tmp_path: Path, reference: str
) -> None:
    text = BUNDLE.replace("[a]", f"[{json.dumps(reference)}]")
    expected = (
        "databricks.yml: resources.jobs.pipeline.tags[0]: unknown reference in "
        f"{reference!r}. Only ${{section.name}} is resolved."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load(write(tmp_path, text), "dev", variables={}, user="someone")
    with pytest.raises(InputError, match="unknown reference in"):
        load(write(tmp_path), "dev", variables={"place": reference}, user="someone")


@pytest.mark.parametrize(
    ("text", "target", "variables", "words"),
    [
        (
            BUNDLE,
            "test",
            {},
            r"^databricks\.yml: no target test; it has local, dev, prod\. Pass one of them\.$",
        ),
        (
            BUNDLE,
            "dev",
            {"x": "1"},
            r"^databricks\.yml: no variable x; it has catalog, folder, place, cluster\. Pass one ",
        ),
        (
            BUNDLE.replace('catalog: ""', 'place: ""'),
            "local",
            {},
            r"^databricks\.yml: variable catalog has no value\. Pass --var catalog=VALUE\.$",
        ),
        ("a: [", "dev", {}, r"^databricks\.yml: invalid YAML: while parsing a flow"),
        (
            "- a",
            "dev",
            {},
            r"^databricks\.yml: expected a mapping with bundle, resources and targets, "
            r"found list\.$",
        ),
    ],
)
def test_a_definition_that_lacks_something_is_refused_with_what_it_has(
    tmp_path: Path, text: str, target: str, variables: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load(write(tmp_path, text), target, variables=variables, user="someone")


def test_a_missing_definition_is_one_line(tmp_path: Path) -> None:
    words = (
        r"databricks\.yml: the bundle's definition cannot be read: No such file .* Run this from"
    )
    with pytest.raises(InputError, match=words):
        load(tmp_path / "databricks.yml", "dev", variables={}, user="someone")
    assert targets_of(write(tmp_path)) == ["local", "dev", "prod"]


@pytest.mark.parametrize(
    ("user", "short"),
    [("some.one@example.com", "some_one"), ("root", "root"), ("A-b+.c_@x", "a_b_c")],
)
def test_a_users_short_name_is_the_part_that_goes_into_names(user: str, short: str) -> None:
    assert short_name(user) == short
