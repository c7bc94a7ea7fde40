"""Speed of training and translation on this machine: `make bench`.

Takes Multi30k from corpora/multi30k where `make multi30k` has fetched it, else writes the offline corpus;
translates with the model of runs/multi30k/averaged or runs/quickstart where one is trained, else with random
weights. Everything is printed, and written to runs/bench.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does

import torch

from nmt.device import choose_device
from nmt.errors import UserError

from . import ceilings, comparison, models, tables
from .corpora import Corpora, TestSet, random_corpus, read_test_set, test_set
from .training import training_speeds

SECTIONS = ("ceilings", "training", "translation")
FORCED_TOKENS = 15  # of a translation by random weights, its end counted
RANDOM = 'architecture = "transformer"\npreset = "{preset}"'


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="nmt-bench-") as temporary:
            _run(options, Path(temporary))
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    add("--steps", type=int, default=60, help="of training, for each architecture")
    add("--batch-tokens", type=_positive, default=4096, help="of training")
    add("--vocabulary", type=_positive, help="train on random words of so many subwords, not on the corpus")
    add("--trained", nargs="+", default=[], metavar="NAME", help="only models of whose names this is a part")
    add("--model", type=Path, action="append", help="to translate with; may be given again")
    add("--base", type=Path, help="a larger model; without it random weights of the preset base")
    add("--no-base", action="store_true", help="no larger model")
    add("--lines", type=Path, help="source lines to translate, in place of the corpus's")
    add("--reference", type=Path, help="translations of --lines, for BLEU")
    add("--count", type=_positive, default=10_000, help="lines to translate")
    add("--base-count", type=_positive, default=1_000, help="the same for the larger model")
    add("--beam-size", type=_positive, default=5)
    add("--repeats", type=_positive, default=3, help="passes of each engine, in turns")
    add("--tuning-lines", type=_positive, default=1_000, help="to find the other engines' best settings on")
    add(
        "--device",
        default="cpu",
        help="cpu, or cuda: of ceilings and translation; training takes the GPU there is",
    )
    add("--threads", type=_positive, help="all cores without it")
    add("--output", type=Path, default=Path("runs/bench"), help="folder for results")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("is less than 1")
    return number


def _run(options: argparse.Namespace, folder: Path) -> None:
    machine = tables.machine(torch.get_num_threads())
    print(tables.machine_text(machine))
    shown = f"{tables.machine_text(machine)}\n\n"
    if "ceilings" in options.only:
        rows = ceilings.measure((ceilings.TRAINING_SHAPE, *ceilings.SHAPES), device=options.device)
        text = tables.ceilings_text(rows)
        print(f"\nMatrix products:\n\n{text}")
        tables.save(options.output, "ceilings", {"machine": machine, "rows": rows}, shown + text + "\n")
    corpora = Corpora(folder)
    if "training" in options.only:
        corpus = corpora.corpus
        if options.vocabulary:
            corpus = random_corpus(folder / "random", options.vocabulary)
        print(f"\ncorpus: {corpus.folder.name}, {corpus.vocabulary:,} subwords")
        trained = []
        for speed in training_speeds(
            corpus,
            folder,
            options.steps,
            threads=torch.get_num_threads(),
            base=not options.no_base,
            batch_tokens=options.batch_tokens,
            named=options.trained,
        ):
            print(
                f"training, {speed.model}, {speed.precision}, batches of {options.batch_tokens:,} tokens: "
                f"{speed.target_tokens_per_second:,.0f} target tokens/s",
                flush=True,
            )
            trained.append(asdict(speed))
        text = shown + tables.training_text(trained, options.batch_tokens) + "\n"
        found = {"machine": machine, "corpus": corpus.folder.name, "vocabulary": corpus.vocabulary}
        found |= {"batch_tokens": options.batch_tokens, "steps": options.steps, "rows": trained}
        tables.save(options.output, "training", found, text)
    if "translation" in options.only:
        _translation(options, folder, corpora, machine)


def _translation(
    options: argparse.Namespace, folder: Path, corpora: Corpora, machine: dict[str, Any]
) -> None:
    """Each model; what is found so far is written after each."""
    compared: list[dict[str, Any]] = []
    given = options.model or models.trained_models(corpora.corpus)
    jobs = [(path, options.count) for path in given]
    if not jobs:
        tiny = RANDOM.format(preset="tiny")
        jobs.append(
            (models.random_model(folder / "tiny-random", corpora.corpus, tiny, FORCED_TOKENS), options.count)
        )
    if options.base is not None:
        jobs.append((options.base, options.base_count))
    elif not options.no_base:
        base = RANDOM.format(preset="base")
        made = models.random_model(folder / "base-random", corpora.corpus, base, FORCED_TOKENS)
        jobs.append((made, options.base_count))
    for number, (model, count) in enumerate(jobs):
        lines = _lines(options, corpora, count)
        plan = comparison.Plan(
            beam_size=options.beam_size,
            threads=machine["threads"],
            repeats=options.repeats,
            tuning_lines=min(options.tuning_lines, max(100, count // 5)),
            device=str(choose_device(options.device)),
        )
        print(f"\ntranslation, {_shown(model, folder)}", flush=True)
        found = comparison.compare(model, lines, plan, folder / f"exports-{number}", _tell)
        found["model"] = _shown(model, folder)
        if model.is_relative_to(folder):
            found["notes"].append(
                f"random weights: each translation has {FORCED_TOKENS} steps, and what CTranslate2 writes in "
                "the last is not the end of the sentence, so that none of its lines is equal"
            )
        found["latency"] = dict(
            comparison.latencies(model, lines.sources[0], options.repeats, found["notes"], options.device)
        )
        compared.append(found)
        print("\n" + tables.comparison_text(found), flush=True)
        text = "\n".join([tables.machine_text(machine) + "\n", *map(tables.comparison_text, compared)])
        tables.save(options.output, "translation", {"machine": machine, "models": compared}, text)


def _lines(options: argparse.Namespace, corpora: Corpora, count: int) -> TestSet:
    if options.lines is None:
        return test_set(corpora.corpus, count)
    return read_test_set(options.lines, options.reference, count)


def _shown(model: Path, folder: Path) -> str:
    return f"{model.name} weights" if model.is_relative_to(folder) else str(model)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
