"""Models to translate with: those that are trained, and random ones of a size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nmt.checkpoint import save_model, weights_of
from nmt.config_file import parse_config
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import BOS, EOS, PAD, UNK, train_tokenizer
from nmt.models import build_model

from .corpora import Corpus

TRAINED = ("runs/multi30k/averaged", "runs/quickstart/transformer", "runs/quickstart/bahdanau")
CONFIG = """
[data]
train = "train"
validation = "validation"
source_language = "en"
target_language = "de"
[model]
{model}
[search]
max_length_factor = 0.0
max_length_offset = {tokens}
"""


def trained_models(corpus: Corpus) -> list[Path]:
    """Of this corpus, as recipes leave them."""
    paths = [Path(run) for run in TRAINED if ("multi30k" in run) == corpus.is_multi30k]
    return [path for path in paths if path.exists()]


def random_model(folder: Path, corpus: Corpus, model: str, tokens: int) -> Path:
    """A model folder with random weights, whose translations all have so many tokens, their end counted.

    Args:
        model: lines of [model].
    """
    config = parse_config(CONFIG.format(model=model, tokens=tokens))
    stem = corpus.train.name
    files = [path for path in sorted(corpus.folder.iterdir()) if path.name.split(".")[0] == stem]
    files = [path for path in files if path.name.removesuffix(".gz").endswith((".en", ".de"))]
    lines = [line for file in files for line in read_lines(file)]
    tokenizer = train_tokenizer(lines, type="bpe", vocabulary_size=corpus.vocabulary)
    torch.manual_seed(1)
    made: Any = build_model(config.model, len(tokenizer), len(tokenizer))
    with torch.no_grad():
        # A row of zeros gives a logit of 0, which thousands of others are above: no sentence ends by itself.
        made.embeddings.output.weight[[PAD, UNK, BOS, EOS]] = 0
    save_model(folder, weights_of(made), config, tokenizer, tokenizer, {"step": 0})
    return folder
