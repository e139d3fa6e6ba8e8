"""The packaged backbone as transformers alone loads it: what every baseline starts from."""

from typing import Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines.model import backbone

MOST_TOKENS = 512


def plain_tokenizer() -> Any:
    """The backbone's tokenizer, which itself would cut a text at 128 tokens."""
    return AutoTokenizer.from_pretrained(
        backbone.find(backbone.EMBEDDED), model_max_length=MOST_TOKENS
    )


def plain_model() -> Any:
    """The backbone with a fresh two-way head."""
    return AutoModelForSequenceClassification.from_pretrained(
        backbone.find(backbone.EMBEDDED), num_labels=2
    )
