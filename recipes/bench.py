"""Speed of training and translation on this machine: `make bench`.

Takes Multi30k from corpora/multi30k where `make multi30k` has fetched it, else writes the offline corpus;
translates with the model of runs/multi30k/averaged or runs/quickstart/transformer where one is trained.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does

import torch

from nmt.checkpoint import load_model
from nmt.config_file import parse_config
from nmt.data.corpus import read_lines
from nmt.data.synthetic import write_corpus
from nmt.run import Run
from nmt.training import Trainer
from nmt.translator import Translator

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


def matrix_ceiling(repeats: int = 20) -> float:
    """GFLOP/s of the largest product of a training step: (3500, 128) x (128, 256), float32."""
    x, weight = torch.randn(3500, 128), torch.randn(256, 128)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - began)
    return 2 * x.numel() * 256 / statistics.median(times) / 1e9


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


def translation_speed(model: Path, source: Path, beam_size: int, repeats: int = 3) -> float:
    """Sentences a second, the median of several passes, model loaded."""
    loaded = load_model(model)
    lines = list(read_lines(source))
    search = loaded.config.search.model_copy(update={"beam_size": beam_size})
    translator = Translator.of(loaded, search)
    translator.translate_all(lines[:100])
    speeds = []
    for _ in range(repeats):
        began = time.perf_counter()
        translator.translate_all(lines)
        speeds.append(len(lines) / (time.perf_counter() - began))
    return statistics.median(speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    print(f"threads {torch.get_num_threads()}, torch {torch.__version__}")
    print(f"float32 matrix product: {matrix_ceiling():,.0f} GFLOP/s")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus, vocabulary, test = Path("corpora/multi30k"), 8000, "test_2016_flickr.en.gz"
        train, validation = corpus / "train", corpus / "val"
        if not (corpus / "train.en.gz").exists():
            corpus, vocabulary, test = folder / "corpus", 2000, "test.en"
            write_corpus(corpus)
            train, validation = corpus / "train", corpus / "validation"
        print(f"corpus: {corpus.name}, {vocabulary:,} subwords")
        for name, model in MODELS.items():
            config = CONFIG.format(train=train, validation=validation, vocabulary=vocabulary, model=model)
            speed = training_speed(config, folder / name.replace(" ", "-"), arguments.steps)
            print(f"training, {name}, batches of 4,096 tokens: {speed:,.0f} target tokens/s")
        for run in ("runs/multi30k/averaged", "runs/quickstart/transformer", "runs/quickstart/bahdanau"):
            if not Path(run).exists() or ("multi30k" in run) != (corpus.name == "multi30k"):
                continue
            for beam_size in (1, 5):
                speed = translation_speed(Path(run), corpus / test, beam_size)
                print(f"translation, {run}, beam {beam_size}: {speed:,.0f} sentences/s")


if __name__ == "__main__":
    main()
