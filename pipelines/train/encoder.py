"""The backbone made ready for training: a new head, dropout set, layers frozen."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from pipelines.errors import InputError
from pipelines.model.backbone import load_tokenizer
from pipelines.model.classifier import LABELS, read_model
from pipelines.train.settings import FREEZE_HALF, FREEZE_NOTHING, KEEP_DROPOUT, n_frozen_layers


def load_for_training(
    directory: Path, seed: int, dropout: float = 0.0, max_tokens: int = 0
) -> tuple[Any, Tokenizer]:
    """Load the backbone with a new two-class head, initialised from `seed`, and its tokenizer.

    dropout     of every layer; KEEP_DROPOUT keeps the backbone's own
    max_tokens  raises InputError if the backbone has fewer positions
    """
    config = _training_config(directory, dropout)
    _refuse_too_long(config, max_tokens)
    torch.manual_seed(seed)
    # transformers reports the new head as a fault. The function has no type hints.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model, without_weights = read_model(directory, config)
    body = f"{model.base_model_prefix}."
    missing = [key for key in without_weights if key.startswith(body) and ".pooler." not in key]
    if missing:
        raise InputError(
            f"{directory}: weights of {missing[0]} are missing. Pass another --backbone."
        )
    return model, load_tokenizer(directory)


def refuse_pooling(model: Any, pooling: str) -> None:
    """Raise InputError for `mean` if the architecture's head is not a single linear layer."""
    head = getattr(model, "classifier", None)
    if pooling == "mean" and not isinstance(head, torch.nn.Linear):
        kind = type(head).__name__
        raise InputError(
            f"--pooling mean: expected a linear head, found {kind}. Pass --pooling own."
        )


def freeze(model: Any, freeze_layers: int) -> int:
    """Freeze the embeddings and the first layers; returns the number of frozen parameters.

    freeze_layers  -1 nothing, 0 embeddings, n embeddings and the first n layers,
                   -2 embeddings and a third of the layers, -3 embeddings and half
    """
    if freeze_layers == FREEZE_NOTHING:
        return 0
    body = model.base_model
    layers = _layers_of(body, model.config.num_hidden_layers)
    if freeze_layers > len(layers):
        limits = f"{FREEZE_HALF}..{len(layers)} (the backbone's layers)"
        raise InputError(f"--freeze-layers must be {limits}, got {freeze_layers}")
    n_frozen = n_frozen_layers(freeze_layers, len(layers))
    n_parameters = 0
    for part in (body.embeddings, *layers[:n_frozen]):
        for parameter in part.parameters():
            parameter.requires_grad_(False)
            n_parameters += parameter.numel()
    return n_parameters


def _layers_of(body: Any, n_layers: int) -> list[Any]:
    """Return the encoder's layers; none for ALBERT, which shares one layer."""
    for part in body.modules():
        if isinstance(part, torch.nn.ModuleList) and len(part) == n_layers:
            return list(part)
    return []


def _training_config(directory: Path, dropout: float) -> Any:
    config_text = (directory / "config.json").read_text(encoding="utf-8")
    if "auto_map" in json.loads(config_text):
        raise InputError(
            f"{directory}/config.json: auto_map is not allowed, since it runs code. "
            "Pass a --backbone of a built-in architecture."
        )
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {name: number for number, name in enumerate(LABELS)}
    if dropout != KEEP_DROPOUT:
        for name in config.to_dict():
            if name.endswith(("dropout", "dropout_prob")):
                setattr(config, name, dropout)
    return config


def _refuse_too_long(config: Any, max_tokens: int) -> None:
    # RoBERTa's family counts positions from the padding id on, so two of its 514 are never used.
    offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    limit = config.max_position_embeddings - offset
    if max_tokens > limit:
        raise InputError(
            f"--max-tokens must be at most {limit} (the backbone's position limit), "
            f"got {max_tokens}"
        )
