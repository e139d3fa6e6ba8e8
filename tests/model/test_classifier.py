"""The classifier: tokenisation, batches, prediction, saving, loading, manifest. Needs no Spark."""

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from pipelines.model import classifier
from pipelines.model.classifier import (
    Classifier,
    Lexical,
    ModelFilesError,
    Policy,
    head_and_tail,
    token_budget_batches,
    tokenise,
)
from pipelines.model.manifest import ManifestError, manifest_of, verify_manifest
from pipelines.train.encoder import load_for_training
from tests.support.tiny_encoder import CLS, SEP, SPECIAL_TOKENS, build, tokenizer_of

TEXTS = ["a good film", "a bad film, and long: " + "very " * 60 + "long", "", "good"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classifier")
    model, tokenizer = load_for_training(build(root / "backbone", TEXTS), seed=1)
    policy = Policy(max_tokens=32, temperature=1.5, precision="fp32")
    classifier.save(root / "model", model, tokenizer, policy)
    return root / "model"


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("token_ids", "max_tokens", "head", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], 4, 1, [1, 4, 5, 6]),
        ([1, 2, 3, 4, 5, 6], 4, 4, [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5, 6], 4, 0, [3, 4, 5, 6]),
        ([1, 2, 3, 4], 4, 1, [1, 2, 3, 4]),
        ([], 4, 1, []),
    ],
)
def test_head_and_tail_keeps_the_ends_in_order(
    token_ids: list[int], max_tokens: int, head: int, expected: list[int]
) -> None:
    kept = head_and_tail(np.array(token_ids, dtype=np.int32), max_tokens, head)
    assert kept.tolist() == expected


@pytest.mark.parametrize("head", [-1, 5])
def test_head_and_tail_rejects_a_head_that_is_too_long(head: int) -> None:
    with pytest.raises(ValueError, match=rf"head must be 0\.\.4 \(max_tokens\), got {head}"):
        head_and_tail(np.arange(9, dtype=np.int32), 4, head)


def test_tokenise_truncates_to_max_tokens_whatever_the_tokenizer_file_says() -> None:
    words = [f"w{number}" for number in range(30)]
    tokenizer = tokenizer_of([*SPECIAL_TOKENS, *words])  # it truncates and pads to 16 tokens
    first = len(SPECIAL_TOKENS)
    texts = [" ".join(words), "w0 w1", "W2", ""]
    token_ids, is_truncated, _ = tokenise(tokenizer, texts, Policy(max_tokens=22, head_share=0.25))
    head = range(first, first + 5)
    tail = range(first + 15, first + 30)
    assert [ids.tolist() for ids in token_ids] == [
        [CLS, *head, *tail, SEP],
        [CLS, first, first + 1, SEP],
        [CLS, first + 2, SEP],
        [CLS, SEP],
    ]
    assert is_truncated.tolist() == [True, False, False, False]
    assert all(ids.dtype == np.int32 for ids in token_ids)


def test_a_text_of_exactly_max_tokens_is_not_truncated() -> None:
    tokenizer = tokenizer_of([*SPECIAL_TOKENS, "w"])
    token_ids, is_truncated, _ = tokenise(tokenizer, ["w " * 8, "w " * 9], Policy(max_tokens=10))
    assert [len(ids) for ids in token_ids] == [10, 10]
    assert is_truncated.tolist() == [False, True]


def test_tokenise_without_texts_returns_nothing() -> None:
    token_ids, is_truncated, _ = tokenise(tokenizer_of(SPECIAL_TOKENS), [], Policy())
    assert (token_ids, is_truncated.tolist()) == ([], [])


@pytest.mark.parametrize(
    ("text", "kind"), [(None, "NoneType"), (3, "int"), (float("nan"), "float"), ("\ud800", "str")]
)
def test_tokenise_names_the_row_that_is_not_text(text: object, kind: str) -> None:
    with pytest.raises(
        ValueError, match=f"text of row 1: expected a string of valid UTF-8, found {kind}"
    ):
        tokenise(tokenizer_of(SPECIAL_TOKENS), ["good", text], Policy())  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([5, 2, 5, 3], 10, [[1, 3], [0, 2]]),
        ([2, 2, 2], 6, [[0, 1, 2]]),
        ([2, 2, 2], 5, [[0, 1], [2]]),
        ([9, 1], 5, [[1], [0]]),
        ([], 5, []),
    ],
)
def test_batches_are_sorted_by_length_and_keep_the_budget(
    lengths: list[int], budget: int, expected: list[list[int]]
) -> None:
    batches = token_budget_batches(np.array(lengths, dtype=np.int64), budget)
    assert [batch.tolist() for batch in batches] == expected


@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 4_000))
def test_batches_contain_every_row_once_and_only_single_rows_exceed_the_budget(
    lengths: list[int], budget: int
) -> None:
    batches = token_budget_batches(np.array(lengths, dtype=np.int64), budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


def test_predict_returns_one_row_per_text_in_the_order_given(saved: Path) -> None:
    loaded = classifier.load(saved)
    together = loaded.predict(TEXTS)
    assert together.dtypes.astype(str).to_dict() == {
        "probability": "float64",
        "prediction": "int64",
        "is_truncated": "bool",
    }
    assert together["is_truncated"].tolist() == [False, True, False, False]
    alone = pd.concat([loaded.predict([text]) for text in TEXTS], ignore_index=True)
    np.testing.assert_allclose(together["probability"], alone["probability"], atol=1e-6)
    assert together["probability"].nunique() == len(TEXTS)
    assert len(loaded.predict([])) == 0


def test_padding_changes_logits_by_rounding_only(saved: Path) -> None:
    loaded = classifier.load(saved)
    token_ids, _, _ = tokenise(loaded.tokenizer, TEXTS, loaded.policy)
    policy = Policy(precision="fp32")
    together = classifier.predict_logits(loaded.model, token_ids, policy, budget=10_000)
    one_by_one = classifier.predict_logits(loaded.model, token_ids, policy, budget=1)
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


@pytest.mark.parametrize(
    ("logits", "temperature", "expected"),
    [
        ([0.0, 0.0], 1.0, 0.5),
        ([0.0, 2.0], 1.0, 0.880797),
        ([0.0, 2.0], 2.0, 0.731059),
        ([900.0, -900.0], 1.0, 0.0),
    ],
)
def test_temperature_softens_the_probability(
    logits: list[float], temperature: float, expected: float
) -> None:
    probability = classifier.probability_of(np.array([logits], dtype=np.float32), temperature)
    assert probability[0] == pytest.approx(expected, abs=1e-6)


def test_a_logit_that_is_not_finite_gives_nan() -> None:
    logits = np.array([[np.nan, 0.0], [np.inf, np.inf]], dtype=np.float32)
    with np.errstate(invalid="ignore"):
        assert np.isnan(classifier.probability_of(logits, 1.0)).all()


def test_the_threshold_decides_the_prediction(saved: Path) -> None:
    loaded = classifier.load(saved)
    strict = Classifier(loaded.model, loaded.tokenizer, Policy(threshold=1.0))
    lax = Classifier(loaded.model, loaded.tokenizer, Policy(threshold=0.0))
    assert strict.predict(["good"])["prediction"].tolist() == [0]
    assert lax.predict(["good"])["prediction"].tolist() == [1]


def test_save_writes_five_files_and_load_reads_back_the_same_weights_and_policy(
    saved: Path, tmp_path: Path
) -> None:
    assert sorted(file.name for file in saved.iterdir()) == list(classifier.MODEL_FILES)
    loaded = classifier.load(saved)
    assert loaded.policy == Policy(max_tokens=32, temperature=1.5, precision="fp32")
    classifier.save(tmp_path / "again", loaded.model, loaded.tokenizer, loaded.policy)
    weights = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert weights == (saved / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"auto_map": {"AutoConfig": "evil.Evil"}},
            r"config\.json: auto_map is not allowed, since it runs code",
        ),
        (
            {"id2label": {"0": "positive", "1": "negative"}},
            "expected id2label {'0': 'negative', '1': 'positive'}, found {'0': 'positive'",
        ),
    ],
)
def test_load_rejects_a_config_with_code_or_swapped_labels(
    copied: Path, change: dict[str, object], words: str
) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelFilesError, match=words):
        classifier.load(copied)


def test_load_rejects_weights_without_the_head(copied: Path) -> None:
    model = classifier.load(copied).model
    model.base_model.save_pretrained(copied / "body")
    (copied / "body" / "model.safetensors").replace(copied / "model.safetensors")
    (copied / "body" / "config.json").unlink()
    (copied / "body").rmdir()
    with pytest.raises(
        ModelFilesError, match=r"model\.safetensors: missing weights .*classifier\.weight"
    ):
        classifier.load(copied)


def test_load_rejects_missing_and_extra_files(copied: Path, tmp_path: Path) -> None:
    (copied / "pytorch_model.bin").write_bytes(b"pickle")
    words = r"found config\.json, lexical\.safetensors, model\.safetensors, policy\.json, pytorch_m"
    with pytest.raises(ModelFilesError, match=words):
        classifier.load(copied)
    with pytest.raises(ModelFilesError, match=r"expected config\.json, .*, found no files"):
        classifier.load(tmp_path / "absent")


def test_an_unchanged_directory_matches_its_manifest(saved: Path) -> None:
    manifest = manifest_of(saved)
    assert [path for path, _, _ in manifest] == list(classifier.MODEL_FILES)
    verify_manifest(saved, manifest)


def test_a_changed_or_missing_file_is_named(copied: Path) -> None:
    manifest = manifest_of(copied)
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))  # one bit
    with pytest.raises(
        ManifestError,
        match=rf"model\.safetensors: the manifest says {len(weights)} bytes of SHA-256",
    ):
        verify_manifest(copied, manifest)
    (copied / "model.safetensors").write_bytes(weights + b"\0")
    with pytest.raises(
        ManifestError, match=rf"model\.safetensors: .*found {len(weights) + 1} bytes"
    ):
        verify_manifest(copied, manifest)
    (copied / "model.safetensors").write_bytes(weights)
    (copied / "policy.json").unlink()
    with pytest.raises(
        ManifestError, match=r"policy\.json: the manifest says a file, found no such file"
    ):
        verify_manifest(copied, manifest)


def test_the_logged_model_is_the_file_itself_and_scores_like_the_classifier(
    saved: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "logged"
    mlflow.pyfunc.save_model(
        directory,
        python_model=classifier.__file__,
        artifacts={"model": str(saved)},
        signature=classifier.SIGNATURE,
        pip_requirements=["torch"],
    )
    assert not {".pkl", ".pickle", ".bin"} & {file.suffix for file in directory.rglob("*")}
    code = Path(classifier.__file__).read_bytes()
    assert (directory / "classifier.py").read_bytes() == code
    logged = mlflow.pyfunc.load_model(str(directory))
    scores = logged.predict(pd.DataFrame({"text": TEXTS}))
    pd.testing.assert_frame_equal(scores, classifier.load(saved).predict(TEXTS))
    assert logged.metadata.signature == classifier.SIGNATURE


def test_the_file_runs_without_our_packages(saved: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.py"
    alone.write_bytes(Path(classifier.__file__).read_bytes())
    program = f"""
import sys, alone
print(len(alone.load({str(saved)!r}).predict(["good"])))
print([name for name in sys.modules if name.split(".")[0] in ("pipelines", "schemas")])
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split("\n")[:2] == ["1", "[]"], run.stderr


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_sets_the_type_of_products(precision: str) -> None:
    with classifier.autocast(torch.device("cpu"), precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


@pytest.fixture
def unmeasured() -> Iterator[None]:
    classifier.faster_precision.cache_clear()
    yield
    classifier.faster_precision.cache_clear()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("bf16_s", "expected"),
    [([1.0], "bf16"), ([1.6, 9.0, 1.5], "bf16"), ([1.6], "fp32"), ([20.0], "fp32")],
)
def test_bf16_is_chosen_if_its_best_time_is_clearly_shorter(
    bf16_s: list[float],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = {torch.float32: itertools.cycle([2.0, 9.0]), torch.bfloat16: itertools.cycle(bf16_s)}
    monkeypatch.setattr(classifier, "_seconds_of_product", lambda _, dtype: next(times[dtype]))
    with caplog.at_level("INFO"):
        assert classifier.faster_precision("cpu") == expected
        assert classifier.faster_precision("cpu") == expected
    line = f"precision {expected}: products in bf16 take 1/{2 / min(bf16_s):.1f}"
    assert caplog.text.count(line) == 1
    with classifier.autocast(torch.device("cpu"), "auto"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[expected]


@pytest.mark.usefixtures("unmeasured")
def test_a_machine_that_is_very_slow_in_bf16_is_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[torch.dtype] = []

    def seconds(_: str, dtype: torch.dtype) -> float:
        timed.append(dtype)
        return {torch.float32: 1.0, torch.bfloat16: 4.1}[dtype]

    monkeypatch.setattr(classifier, "_seconds_of_product", seconds)
    assert classifier.faster_precision("cpu") == "fp32"
    assert timed == [torch.float32, torch.bfloat16]


def test_a_tokenizer_without_special_tokens_adds_none() -> None:
    tokenizer = Tokenizer.from_str(tokenizer_of([*SPECIAL_TOKENS, "w"]).to_str())
    plain = json.loads(tokenizer.to_str()) | {"post_processor": None}
    without = Tokenizer.from_str(json.dumps(plain))
    token_ids, _, _ = tokenise(without, ["w w"], Policy(max_tokens=8))
    assert token_ids[0].tolist() == [len(SPECIAL_TOKENS)] * 2


@pytest.mark.parametrize("shortened", [("idf",), ("weight",), ("idf", "weight")])
def test_a_lexical_part_with_too_few_terms_is_rejected(
    copied: Path, shortened: tuple[str, ...]
) -> None:
    arrays = load_file(copied / "lexical.safetensors")
    for name in shortened:
        arrays[name] = arrays[name][:-1]
    save_file(arrays, copied / "lexical.safetensors")
    with pytest.raises(
        ModelFilesError,
        match=r"lexical\.safetensors: expected \d+ or more terms, found \d+ idf, \d+ weight",
    ):
        classifier.load(copied)


def test_pairs_make_the_order_of_words_count_after_saving_and_loading(
    saved: Path, tmp_path: Path
) -> None:
    loaded = classifier.load(saved)
    n_tokens = loaded.tokenizer.get_vocab_size()
    weight = np.random.default_rng(5).normal(0, 5, n_tokens + 64).astype(np.float32)
    part = Lexical(np.ones_like(weight), weight, 0.0, n_tokens)
    policy = dataclasses.replace(loaded.policy, lexical_weight=1.0)
    classifier.save(tmp_path / "wide", loaded.model, loaded.tokenizer, policy, part)
    wide = classifier.load(tmp_path / "wide")
    _, _, bodies = tokenise(loaded.tokenizer, ["very long", "long very"], policy)
    assert wide.lexical is not None
    margins = wide.lexical.margin(bodies)
    np.testing.assert_array_equal(margins, part.margin(bodies))
    assert abs(margins[0] - margins[1]) > 0.1


def test_the_lexical_part_reads_truncated_tokens(saved: Path, tmp_path: Path) -> None:
    loaded = classifier.load(saved)
    middle = loaded.tokenizer.token_to_id("long")
    weight = np.zeros(loaded.tokenizer.get_vocab_size(), np.float32)
    weight[middle] = 50.0
    part = Lexical(np.ones_like(weight), weight, 0.0, len(weight))
    policy = dataclasses.replace(loaded.policy, max_tokens=8, lexical_weight=1.0)
    classifier.save(tmp_path / "wide", loaded.model, loaded.tokenizer, policy, part)
    wide = classifier.load(tmp_path / "wide")
    plain = Classifier(loaded.model, loaded.tokenizer, policy)
    cut = "very " * 20 + "long " + "very " * 20
    with_lexical = wide.predict([cut, "very"])["probability"].to_numpy()
    encoder_only = plain.predict([cut, "very"])["probability"].to_numpy()
    assert with_lexical[0] > encoder_only[0] + 0.1
    assert with_lexical[1] == encoder_only[1]
