"""A tiny backbone: a random BERT of about 100 KB, with a WordPiece tokenizer for given texts."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLS, SEP, PAD = 2, 3, 0


def build(directory: Path, texts: Sequence[str], max_positions: int = 128) -> Path:
    """Write config.json, model.safetensors and tokenizer.json; returns the directory.

    Equal texts give equal bytes.
    """
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    tokenizer = tokenizer_of([*SPECIAL_TOKENS, *words])
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_positions,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def tokenizer_of(vocabulary: Sequence[str]) -> Tokenizer:
    """Build a lower-case WordPiece tokenizer; like MiniLM's, it truncates and pads by default."""
    ids = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer
