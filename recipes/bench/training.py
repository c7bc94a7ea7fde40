"""How fast models of each architecture train."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from nmt.config_file import parse_config
from nmt.run import Run
from nmt.training import Trainer

from .corpora import Corpus

CONFIG = """
[data]
train = "{train}"
validation = "{validation}"
source_language = "en"
target_language = "de"
[tokenizer]
vocabulary_size = {vocabulary}
[model]
{model}
"""
RECURRENT = "embedding_width = 256\nhidden_width = 256\n"
LUONG = f'architecture = "luong"\nattentional_width = 256\nlayers = 1\n{RECURRENT}'
MODELS = {
    "Transformer tiny": 'architecture = "transformer"\npreset = "tiny"',
    "Bahdanau 256": f'architecture = "bahdanau"\nattention_width = 256\nmaxout_width = 256\n{RECURRENT}',
    "Luong 256, general, input feeding": LUONG,
    "Luong 256, general, without input feeding": f"{LUONG}input_feeding = false",
    "no attention 256": f'architecture = "recurrent"\nlayers = 1\ntie_embeddings = "target"\n{RECURRENT}',
}


def training_speeds(corpus: Corpus, folder: Path, steps: int) -> Iterator[tuple[str, float]]:
    """Each model and its target tokens a second, in batches of 4,096."""
    for name, model in MODELS.items():
        config = CONFIG.format(
            train=corpus.train, validation=corpus.validation, vocabulary=corpus.vocabulary, model=model
        )
        yield name, training_speed(config, folder / name.replace(" ", "-"), steps)


def training_speed(config: str, folder: Path, steps: int) -> float:
    """Target tokens a second, the median over blocks of ten steps after a warm-up."""
    resolved = parse_config(config)
    with Run.open(folder, resolved) as run:
        trainer = Trainer(resolved, run, lambda event: None)
        speeds = []
        for block in range(1 + steps // 10):
            before, began = trainer.progress.logged_tokens, time.perf_counter()
            for _ in range(10):
                trainer._step()
            if block:
                speeds.append((trainer.progress.logged_tokens - before) / (time.perf_counter() - began))
    return statistics.median(speeds)
