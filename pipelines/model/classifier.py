"""The classifier: tokenisation and inference. The only code that is stored in a logged model.

MLflow logs this file itself as the model's code; training and scoring import the same functions
from it, so tokenisation is defined once. It must never import `pipelines` or `schemas`.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import ColSpec, DataType, Schema
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

MODEL_FILES = (
    "config.json",
    "lexical.safetensors",
    "model.safetensors",
    "policy.json",
    "tokenizer.json",
)
LABELS = ("negative", "positive")
PRECISION_TRIALS = 7
MAX_SLOWDOWN = 4.0  # bf16 slower than fp32 by more than this in the first trial: no more trials
MIN_SPEEDUP = 1.3  # of bf16 over fp32; below it, full precision is worth more than the time
PREDICT_ATTENTION = "sdpa"  # fused; 1.5 times as fast as "eager" at 256 tokens on two cores
PAIR_FACTOR = 1_000_003  # odd, so that pairs of tokens spread over all buckets
TOKEN_BUDGET = 8_192  # rows x longest row of a batch; keeps MiniLM's activations below 1 GB
OUTPUTS = {
    "probability": DataType.double,
    "prediction": DataType.long,
    "is_truncated": DataType.boolean,
}
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string, "text")]),
    outputs=Schema([ColSpec(type_, name) for name, type_ in OUTPUTS.items()]),
)

Progress = Callable[[Iterable[Any]], Iterable[Any]]
log = logging.getLogger("reviewlake")


class ModelFilesError(ValueError):
    """A model directory with missing, extra or invalid files, or with code of its own."""


class Rows(Protocol):
    """Token ids of many reviews by row number: a list of arrays, or a flat array with offsets."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> NDArray[np.int32]: ...


@dataclass(frozen=True)
class Policy:
    """Parameters of tokenisation and of the final prediction. Stored beside the weights."""

    max_tokens: int = 128
    head_share: float = 0.25
    temperature: float = 1.0
    threshold: float = 0.5
    precision: str = "auto"
    pooling: str = "own"
    lexical_weight: float = 0.0
    bias: float = 0.0


@dataclass(frozen=True)
class Lexical:
    """A linear model over all tokens and pairs of adjacent tokens, truncated ones included.

    Source: Cheng et al. 2016, "Wide & Deep Learning": the wide part beside the deep one.
    """

    idf: NDArray[np.float32]  # (n_tokens + n_pairs,) tokens first, then buckets of pairs
    weight: NDArray[np.float32]  # (n_tokens + n_pairs,) in the same order; n_pairs may be 0
    bias: float
    n_tokens: int

    def margin(self, bodies: Rows) -> NDArray[np.float64]:
        """Return each text's log-odds of positive, (n,); the bias for a text without tokens."""
        terms = tf_idf(bodies, self.idf, self.n_tokens)
        weighted = terms.values * self.weight[terms.ids]  # (nnz,)
        sums = np.bincount(terms.rows, weighted, minlength=len(bodies))  # (n,)
        return np.asarray(sums + self.bias, np.float64)


@dataclass(frozen=True)
class Terms:
    """A sparse matrix: one entry for each distinct token or pair of each review."""

    rows: NDArray[np.int64]  # (nnz,) review of each term
    ids: NDArray[np.int64]  # (nnz,) token or bucket of pairs
    values: NDArray[np.float64]  # (nnz,) tf-idf, unit length per review


def tf_idf(bodies: Rows, idf: NDArray[np.float32], n_tokens: int) -> Terms:
    """Weigh each token and pair by (1 + ln count) x idf, scaled to unit length per text."""
    nothing = np.empty(0, np.int64)  # np.concatenate needs one array at least
    ids_by_row = [nothing]
    counts_by_row = [nothing]
    for row in range(len(bodies)):
        term_ids = _term_ids(bodies[row], n_tokens, len(idf))
        unique_ids, counts = np.unique(term_ids, return_counts=True)
        ids_by_row.append(unique_ids)
        counts_by_row.append(counts)
    n_terms_by_row = np.array([len(ids) for ids in ids_by_row[1:]], dtype=np.int64)
    rows = np.repeat(np.arange(len(bodies)), n_terms_by_row)
    ids = np.concatenate(ids_by_row)
    values = (1.0 + np.log(np.concatenate(counts_by_row))) * idf[ids]
    norms = np.sqrt(np.bincount(rows, values**2, minlength=len(bodies)))  # (n,)
    return Terms(rows=rows, ids=ids, values=values / norms[rows])


def head_and_tail(token_ids: NDArray[np.int32], max_tokens: int, head: int) -> NDArray[np.int32]:
    """Shorten one review by keeping its first `head` tokens and its last `max_tokens - head`.

    token_ids  (T,) no special tokens        returns  (min(T, max_tokens),)
    Raises ValueError unless 0 <= head <= max_tokens.
    Source: Sun et al. 2019, "How to Fine-Tune BERT", long texts.
    """
    if not 0 <= head <= max_tokens:
        raise ValueError(f"head must be 0..{max_tokens} (max_tokens), got {head}")
    if len(token_ids) <= max_tokens:
        return token_ids
    tail_start = len(token_ids) - (max_tokens - head)
    return np.concatenate([token_ids[:head], token_ids[tail_start:]])


class Tokenised(NamedTuple):
    """Texts as token ids, in the order given."""

    token_ids: list[NDArray[np.int32]]  # n of (T <= max_tokens,), special tokens included
    is_truncated: NDArray[np.bool_]  # (n,)
    bodies: list[NDArray[np.int32]]  # n of (T,): all tokens of the text, no special ones


def tokenise(tokenizer: Tokenizer, texts: Sequence[str], policy: Policy) -> Tokenised:
    """Tokenise texts, and truncate them to `max_tokens`. ValueError names the row of a bad text."""
    # tokenizer.json may switch both on: MiniLM's truncates and pads every text to 128 tokens.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    before, after = _special_tokens(tokenizer)
    room = policy.max_tokens - len(before) - len(after)
    try:
        encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    except (TypeError, UnicodeEncodeError) as error:
        raise ValueError(_name_offender(texts)) from error
    head = round(room * policy.head_share)
    bodies = [np.asarray(encoding.ids, dtype=np.int32) for encoding in encoded]
    kept = [head_and_tail(body, room, head) for body in bodies]
    return Tokenised(
        token_ids=[np.concatenate([before, ids, after]) for ids in kept],
        is_truncated=np.array([len(body) > room for body in bodies], dtype=np.bool_),
        bodies=bodies,
    )


def token_budget_batches(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Group rows of similar length so that rows x longest <= budget; a longer row goes alone."""
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > budget:
            batches.append(order[start:end])
            start = end
    return batches


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Compute in bf16 if `uses_bf16`, in full precision otherwise."""
    if uses_bf16(device, precision):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def uses_bf16(device: torch.device, precision: str) -> bool:
    """Return True if precision is bf16, or if it is auto and bf16 is faster on this machine."""
    return precision == "bf16" or (precision == "auto" and faster_precision(device.type) == "bf16")


def best_device() -> torch.device:
    """Return this machine's accelerator, or its CPU if it has none."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@functools.cache
def faster_precision(device_type: str) -> str:
    """Return bf16 if this machine multiplies matrices clearly faster in it, else fp32.

    Measured once per process: bf16 is 2.7 times as fast with AVX512-BF16, but may be a hundred
    times as slow where torch has to emulate it.
    """
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(PRECISION_TRIALS):  # alternating, so that other load slows both alike
        for dtype, trials in seconds.items():
            trials.append(_seconds_of_product(device_type, dtype))
        if seconds[torch.bfloat16][0] > MAX_SLOWDOWN * seconds[torch.float32][0]:
            break
    gain = min(seconds[torch.float32]) / min(seconds[torch.bfloat16])
    chosen = "bf16" if gain >= MIN_SPEEDUP else "fp32"
    line = "precision %s: products in bf16 take 1/%.1f of the time of fp32 on this %s"
    log.info(line, chosen, gain, device_type)
    return chosen


def pad(token_ids: Rows, rows: NDArray[np.int64], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and attention mask, (n, longest), of the given rows."""
    chosen = [token_ids[int(row)] for row in rows]
    lengths = np.array([len(ids) for ids in chosen])  # (n,)
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]  # (n, longest)
    ids = np.full(mask.shape, pad_id, dtype=np.int64)  # (n, longest)
    ids[mask] = np.concatenate(chosen)
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def forward(model: Any, ids: torch.Tensor, mask: torch.Tensor, *, pooling: str) -> torch.Tensor:
    """Return logits, (n, 2), by the `mean` of the token states or the model's `own` pooling."""
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    logits: torch.Tensor  # (n, 2)
    if pooling == "own":
        logits = model(**inputs).logits
    else:
        states = model.base_model(**inputs).last_hidden_state.float()  # (n, T, hidden)
        weights = inputs["attention_mask"][..., None].float()  # (n, T, 1)
        logits = model.classifier((states * weights).sum(1) / weights.sum(1))
    return logits


def use_attention(model: Any, implementation: str) -> None:
    """Choose the attention kernel if the architecture allows it; results agree to bf16 rounding."""
    if getattr(model, "_supports_sdpa", False):
        model.set_attn_implementation(implementation)


def predict_logits(
    model: Any,
    token_ids: Rows,
    policy: Policy,
    *,
    budget: int = TOKEN_BUDGET,
    progress: Progress = iter,
) -> NDArray[np.float32]:
    """Return the logits, (n, 2), in the order given; `progress` can wrap the batches in a bar."""
    lengths = np.array([len(token_ids[row]) for row in range(len(token_ids))], dtype=np.int64)
    logits = np.empty((len(lengths), len(LABELS)), dtype=np.float32)  # (n, 2)
    model.eval()
    use_attention(model, PREDICT_ATTENTION)
    with torch.inference_mode(), autocast(model.device, policy.precision):
        # Longest first: what they leave behind is large enough for the others, which saves 0.1 GB.
        for rows in progress(token_budget_batches(lengths, budget)[::-1]):
            ids, mask = pad(token_ids, rows, model.config.pad_token_id or 0)
            batch_logits = forward(model, ids, mask, pooling=policy.pooling)
            logits[rows] = batch_logits.float().cpu().numpy()
    return logits


def blended(
    logits: NDArray[np.float32], lexical_margin: NDArray[np.float64] | float, policy: Policy
) -> NDArray[np.float32]:
    """Add the weighted lexical margin and the bias to the positive logit; returns (n, 2)."""
    shift = policy.lexical_weight * lexical_margin + policy.bias
    return np.stack([logits[:, 0], logits[:, 1] + shift], axis=1).astype(np.float32)


def probability_of(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return P(positive), (n,), by softmax at a temperature; NaN if the logits are not finite."""
    difference = logits[:, 1].astype(np.float64) - logits[:, 0].astype(np.float64)
    return 0.5 * (1.0 + np.tanh(difference / (2.0 * temperature)))


@dataclass(frozen=True)
class Classifier:
    """Weights, tokenizer and policy, ready to score texts. The lexical part is optional."""

    model: Any
    tokenizer: Tokenizer
    policy: Policy
    lexical: Lexical | None = None

    def predict(self, texts: Sequence[str]) -> pd.DataFrame:
        """Return the columns of OUTPUTS, one row per text; ValueError names a bad text's row."""
        tokenised = tokenise(self.tokenizer, texts, self.policy)
        encoder_logits = predict_logits(self.model, tokenised.token_ids, self.policy)
        margin: NDArray[np.float64] | float = 0.0
        if self.lexical and self.policy.lexical_weight:
            margin = self.lexical.margin(tokenised.bodies)
        logits = blended(encoder_logits, margin, self.policy)
        probability = probability_of(logits, self.policy.temperature)
        prediction = (probability >= self.policy.threshold).astype(np.int64)
        columns = [probability, prediction, tokenised.is_truncated]
        return pd.DataFrame(dict(zip(OUTPUTS, columns, strict=True)))


def save(
    directory: Path,
    model: Any,
    tokenizer: Tokenizer,
    policy: Policy,
    lexical: Lexical | None = None,
) -> None:
    """Write the five files that `load` reads to an empty or missing directory."""
    model.save_pretrained(directory, safe_serialization=True)
    nothing = np.zeros(tokenizer.get_vocab_size(), np.float32)
    part = lexical or Lexical(nothing, nothing, 0.0, len(nothing))
    arrays = {"idf": part.idf, "weight": part.weight, "bias": np.array([part.bias])}
    save_file(arrays, directory / "lexical.safetensors")
    tokenizer.save(str(directory / "tokenizer.json"))
    # Sorted keys, so that equal policies give equal bytes.
    policy_text = json.dumps(dataclasses.asdict(policy), indent=2, sort_keys=True)
    (directory / "policy.json").write_text(policy_text + "\n", encoding="utf-8")


def load(directory: str | Path, device: Any = None) -> Classifier:
    """Load a classifier to `device`, by default to the accelerator if there is one.

    No code from the files is run; verify them against their manifest all the same.
    """
    root = Path(directory)
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    if names != list(MODEL_FILES):
        listed = ", ".join(names) or "no files"
        raise ModelFilesError(f"{root}: expected {', '.join(MODEL_FILES)}, found {listed}")
    _refuse_own_code(root / "config.json")
    model, missing = read_model(root)
    if missing:
        raise ModelFilesError(f"{root}/model.safetensors: missing weights {', '.join(missing)}")
    policy = Policy(**json.loads((root / "policy.json").read_text(encoding="utf-8")))
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    return Classifier(
        model=model.to(device or best_device()).eval(),
        tokenizer=tokenizer,
        policy=policy,
        lexical=_load_lexical(root / "lexical.safetensors", tokenizer.get_vocab_size()),
    )


class ReviewClassifier(PythonModel):
    """The logged model. Its only artifact, `model`, is a directory written by `save`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the classifier when MLflow opens the model."""
        self.classifier = load(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """Score the column `text`. MLflow passes all arguments and checks the signature."""
        return self.classifier.predict(model_input["text"].tolist())


def read_model(directory: Path, config: Any = None) -> tuple[Any, list[str]]:
    """Read an encoder and its head from local safetensors; no code from the files is run.

    Also returns the sorted names of the missing weights, which got random numbers.

    config   instead of the directory's own
    """
    # It would show a bar for every process that scores. The function has no type hints.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        directory,
        config=config,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        attn_implementation="eager",
        dtype=torch.float32,
        output_loading_info=True,
    )
    return model, sorted(loading["missing_keys"])


def _load_lexical(file: Path, n_tokens: int) -> Lexical:
    """Load the lexical part; n_tokens is the size of the tokenizer's vocabulary."""
    arrays = load_file(file)
    idf = arrays["idf"]
    weight = arrays["weight"]
    if not n_tokens <= len(idf) == len(weight):
        raise ModelFilesError(
            f"{file}: expected {n_tokens} or more terms, found {len(idf)} idf, {len(weight)} weight"
        )
    return Lexical(idf=idf, weight=weight, bias=float(arrays["bias"][0]), n_tokens=n_tokens)


def _seconds_of_product(device_type: str, dtype: torch.dtype) -> float:
    """Time a matrix product of MiniLM's size, after a warm-up; on an accelerator, 100 of them."""
    left = torch.ones((512, 384), dtype=dtype, device=device_type)
    right = torch.ones((384, 1536), dtype=dtype, device=device_type)
    n_products = 1 if device_type == "cpu" else 100
    for _ in range(2):
        started_s = time.perf_counter()
        for _ in range(n_products):
            product = left @ right
        product[0, 0].item()  # waits until the accelerator has finished
    return time.perf_counter() - started_s


def _term_ids(body: NDArray[np.int32], n_tokens: int, n_terms: int) -> NDArray[np.int64]:
    """Return the ids of a text's tokens, then the buckets of all pairs of adjacent tokens."""
    ids = body.astype(np.int64)  # (T,)
    n_buckets = n_terms - n_tokens
    if n_buckets == 0:
        return ids
    buckets = (ids[:-1] * PAIR_FACTOR + ids[1:]) % n_buckets  # (T - 1,)
    return np.append(ids, n_tokens + buckets)


def _special_tokens(tokenizer: Tokenizer) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the tokens put before and after a text: [CLS] and [SEP], <s> and </s>, or none."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    before = np.array(whole[:start], dtype=np.int32)
    after = np.array(whole[start + len(bare) :], dtype=np.int32)
    return before, after


def _name_offender(texts: Sequence[object]) -> str:
    """Name the first row that is null, a number, or not valid UTF-8 (half a surrogate pair)."""
    for row, text in enumerate(texts):
        if not isinstance(text, str) or text.encode("utf-8", "replace").decode("utf-8") != text:
            kind = type(text).__name__
            return f"text of row {row}: expected a string of valid UTF-8, found {kind}"
    return "texts: the tokenizer cannot read one of them"


def _refuse_own_code(config_file: Path) -> None:
    """Raise ModelFilesError if the config names Python code, or other labels or another order."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if "auto_map" in config:
        raise ModelFilesError(f"{config_file}: auto_map is not allowed, since it runs code")
    labels = config.get("id2label")
    expected = {str(number): name for number, name in enumerate(LABELS)}
    if labels != expected:
        raise ModelFilesError(f"{config_file}: expected id2label {expected}, found {labels}")


# MLflow runs this file under another module name to find the model.
if __name__ != "pipelines.model.classifier":
    mlflow.models.set_model(ReviewClassifier())
