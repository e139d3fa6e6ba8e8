"""The packaged backbone, loaded by transformers alone: the start of every baseline."""

from typing import Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines.model import backbone

MAX_TOKENS = 512  # the position limit of the backbone


def plain_tokenizer() -> Any:
    """Load the backbone's tokenizer; its own limit of 128 tokens is raised."""
    directory = backbone.find(backbone.EMBEDDED)
    return AutoTokenizer.from_pretrained(directory, model_max_length=MAX_TOKENS)


def plain_model() -> Any:
    """Load the backbone with an untrained head for two labels."""
    directory = backbone.find(backbone.EMBEDDED)
    return AutoModelForSequenceClassification.from_pretrained(directory, num_labels=2)
