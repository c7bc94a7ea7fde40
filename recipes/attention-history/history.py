"""What the recipe attention-history adds to nmt: a test of long sentences, speeds, a table, a picture.

`long-test` and `speed` make files once; `report` reads what `nmt evaluate`, `nmt train` and `speed` left in a
folder and writes history.md, history.json, bleu-by-length.png and bleu-by-length.svg there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does

from nmt.config_file import load_config
from nmt.data.corpus import read_lines, read_parallel
from nmt.data.synthetic import generate
from nmt.evaluation import bleu
from nmt.files import write_file
from nmt.results import Row, models_in, read_rows, without_model

WARM_UP_LINES = 100
REPEATS = 3
LEAST_SENTENCES = 60  # of a bin, some thousand words: BLEU of fewer is noise
PICTURE = "bleu-by-length"

# Okabe and Ito's colours, which colour-blind readers tell apart; dashes and markers for readers in grey.
STRONG = {
    "no-attention": ("#D55E00", "o", (0, (5, 2))),
    "bahdanau": ("#009E73", "s", (0, (5, 1.5, 1, 1.5))),
    "luong": ("#0072B2", "^", (0, (1, 1.2))),
    "transformer": ("#000000", "D", "solid"),
}
FAINT_MARKERS = ("x", "+", "1", "2", "3", "4")  # one a Luong system, with input feeding and without
FAINT = "#8A8A8A"


@dataclass(frozen=True)
class System:
    """A line of the table; None is a cell that has no number."""

    name: str
    bleu: Row
    bleu_long: Row | None  # of the second test
    chrf: Row
    perplexity: Row | None
    aer: Row | None
    parameters: int
    training_speed: float  # target tokens a second
    translation_speed: float  # sentences a second


@dataclass(frozen=True)
class Bin:
    """Source sentences of `least` to `most` words; None is any number."""

    least: int
    most: int | None
    sentences: int

    def holds(self, words: int) -> bool:
        return words >= self.least and (self.most is None or words <= self.most)

    @property
    def label(self) -> str:
        if self.most is None:
            return f"{self.least}+"
        return str(self.least) if self.least == self.most else f"{self.least}-{self.most}"


# A test of long sentences


def write_long_test(folder: Path, *, after: int, draws: int, words: int) -> int:
    """Write test-long: the sentences of `words` words or more among the next draws of the split "test".

    Args:
        after: so many of the split are the test itself, and are left out.

    Returns:
        The number of sentences.
    """
    drawn = list(generate("test", after + draws))[after:]
    pairs = [pair for pair in drawn if len(pair.source.split()) >= words]
    columns = {
        "en": [pair.source for pair in pairs],
        "de": [pair.target for pair in pairs],
        "align": [" ".join(f"{i}-{j}" for i, j in pair.alignment) for pair in pairs],
    }
    for suffix, lines in columns.items():
        write_file(folder / f"test-long.{suffix}", "".join(f"{line}\n" for line in lines))
    return len(pairs)


# Speeds


def translation_speed(model: Path, lines: Sequence[str]) -> float:
    """Sentences a second, the median of several passes with the model loaded and warm."""
    from nmt.checkpoint import load_model
    from nmt.translator import Translator

    translator = Translator.of(load_model(model))
    translator.translate_all(list(lines[:WARM_UP_LINES]))
    speeds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        translator.translate_all(list(lines))
        speeds.append(len(lines) / (time.perf_counter() - began))
    return statistics.median(speeds)


def training_speed(metrics: Path) -> float:
    """Target tokens a second, the median over the logged stretches of a run."""
    events = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return float(statistics.median(e["target_tokens_per_second"] for e in events if e["event"] == "train"))


# BLEU by source length


def length_bins(lengths: Sequence[int], width: int = 3, least: int = LEAST_SENTENCES) -> list[Bin]:
    """Bins of `width` numbers of words, joined until each holds at least `least` sentences.

    The last one is open; what is left after it belongs to it. All sentences in one bin where there are few.
    """
    edges: list[tuple[int, int]] = []  # least number of words, sentences
    start, found = 0, 0
    for first in range(1, max(lengths) + 1, width):
        start = start or first
        found += sum(first <= n < first + width for n in lengths)
        if found >= least:
            edges.append((start, found))
            start, found = 0, 0
    if found or not edges:
        begin, more = edges.pop() if edges else (1, 0)
        edges.append((begin, more + found))
    nexts = [begin - 1 for begin, _ in edges[1:]]
    return [Bin(begin, most, n) for (begin, n), most in zip(edges, [*nexts, None], strict=True)]


def bleu_by_length(
    bins: Sequence[Bin], sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> list[float]:
    """Corpus BLEU of the sentences of each bin."""
    rows = list(zip(sources, hypotheses, references, strict=True))
    scores = []
    for one in bins:
        chosen = [(h, r) for s, h, r in rows if one.holds(words_of(s))]
        scores.append(bleu([h for h, _ in chosen], [r for _, r in chosen]))
    return scores


def words_of(line: str) -> int:
    return len(line.split())


# The table


def collect(folder: Path, names: Sequence[str], tests: Sequence[str]) -> list[System]:
    """What the commands left in `folder` about each system."""
    rows = {(row.system, row.test_set, row.metric): row for row in read_rows(folder / "results.json")}
    systems = []
    for name in names:
        found = rows[name, tests[0], "BLEU"]
        systems.append(
            System(
                name=name,
                bleu=found,
                bleu_long=rows.get((name, tests[1], "BLEU")) if len(tests) > 1 else None,
                chrf=rows[name, tests[0], "chrF2"],
                perplexity=rows.get((name, tests[0], "perplexity")),
                aer=rows.get((name, tests[0], "AER")),
                parameters=found.parameters or 0,
                training_speed=training_speed(folder / name / "metrics.jsonl"),
                translation_speed=json.loads((folder / f"{name}.speed.json").read_text())[
                    "sentences_a_second"
                ],
            )
        )
    return systems


def table(systems: Sequence[System], tests: Sequence[str]) -> str:
    """The systems in Markdown, a line each; a column without numbers is left out, a missing number is "-"."""
    columns: dict[str, list[str]] = {
        "BLEU": [interval(s.bleu) for s in systems],
        f"BLEU, {tests[-1]}": [interval(s.bleu_long) for s in systems],
        "chrF2": [number(s.chrf, 2) for s in systems],
        "perplexity": [number(s.perplexity, 2) for s in systems],
        "AER": [number(s.aer, 3) for s in systems],
        "parameters": [f"{s.parameters:,}" for s in systems],
        "training, target tokens/s": [f"{s.training_speed:,.0f}" for s in systems],
        "translation, sentences/s": [f"{s.translation_speed:,.0f}" for s in systems],
        "model": [", ".join(models_in(s.bleu.signature)) or "-" for s in systems],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {"-"}}
    return markdown({"system": [s.name for s in systems], **columns})


def length_table(names: Sequence[str], bins: Sequence[Bin], scores: dict[str, list[float]]) -> str:
    """BLEU by source length, a line a system."""
    header = [f"{one.label} words" for one in bins]
    cells = [[f"{scores[name][i]:.1f}" for name in names] for i in range(len(bins))]
    counts = [f"{one.sentences:,}" for one in bins]
    columns = {h: [n, *column] for h, n, column in zip(header, counts, cells, strict=True)}
    return markdown({"system": ["(sentences)", *names], **columns})


def markdown(columns: dict[str, list[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [
        list(columns),
        ["---", *["---:"] * (len(columns) - 1)],
        *map(list, zip(*columns.values(), strict=True)),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def interval(row: Row | None) -> str:
    if row is None or row.confidence_low is None or row.confidence_high is None:
        return number(row, 2)
    return f"{row.score:.2f} ({row.confidence_low:.1f}-{row.confidence_high:.1f})"


def number(row: Row | None, digits: int) -> str:
    return "-" if row is None else f"{row.score:.{digits}f}"


# The picture


def best_luong(systems: Sequence[System]) -> str | None:
    """The system of Luong's with the highest BLEU."""
    found = [s for s in systems if s.name.startswith("luong")]
    return max(found, key=lambda s: s.bleu.score).name if found else None


def draw(
    files: Sequence[Path], bins: Sequence[Bin], scores: dict[str, list[float]], best: str | None, title: str
) -> None:
    """BLEU by source length, a line a system: after Bahdanau et al. 2014, figure 2."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The same picture is the same bytes: no date, no random names.
    with matplotlib.rc_context({"svg.hashsalt": "nmt"}):
        figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
        places = range(len(bins))
        for name, heights in scores.items():
            axes.plot(places, heights, label=name, **style(name, best))
        axes.set_title(title)
        axes.set_xticks(places, [f"{one.label}\n{one.sentences:,}" for one in bins])
        axes.set_xlabel("source length (words); below it the number of sentences")
        axes.set_ylabel("BLEU (0 to 100)")
        axes.set_ylim(0, 100 if max(map(max, scores.values())) > 60 else None)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False, handlelength=4)
        undated = {".png": {"Software": None}, ".svg": {"Date": None}}
        for file in files:
            figure.savefig(file, dpi=150, metadata=undated.get(file.suffix))
        pyplot.close(figure)


def style(name: str, best: str | None) -> dict[str, Any]:
    """Strong lines for the four that the picture is about, thin grey ones for the rest."""
    family = "luong" if name == best else name
    if family in STRONG:
        color, marker, dashes = STRONG[family]
        return dict(color=color, marker=marker, linestyle=dashes, linewidth=2.4, markersize=7, zorder=3)
    kind = name.removeprefix("luong-").removesuffix("-feed")
    kinds = ("dot", "general", "concat", "location", "local-m", "local-p")
    marker = FAINT_MARKERS[kinds.index(kind)] if kind in kinds else "."
    dashes = "solid" if name.endswith("-feed") else "dashed"
    return dict(color=FAINT, marker=marker, linestyle=dashes, linewidth=0.9, markersize=6, zorder=2)


# The report


def report(folder: Path, names: Sequence[str], prefixes: Sequence[str], languages: tuple[str, str]) -> None:
    """Write history.md, history.json, the picture: of the first test the table, of all the picture."""
    tests = [Path(prefix).name for prefix in prefixes]
    systems = collect(folder, names, tests)
    pairs = [pair for prefix in prefixes for pair in read_parallel(prefix, *languages)]
    sources, references = [source for source, _ in pairs], [target for _, target in pairs]
    bins = length_bins([words_of(source) for source in sources])
    scores = {}
    for name in names:
        files = [folder / "translations" / f"{test}.{name}.{languages[1]}" for test in tests]
        hypotheses = [line for file in files for line in read_lines(file)]
        scores[name] = bleu_by_length(bins, sources, hypotheses, references)
    about = conditions(folder / names[-1])
    write_file(
        folder / "history.json",
        json.dumps(
            {
                **about,
                "tests": tests,
                "systems": [asdict(system) for system in systems],
                "bins": [asdict(one) for one in bins],
                "bleu_by_length": scores,
            },
            indent=2,
        )
        + "\n",
    )
    # The sizes of what was scored, test by test.
    scored = (systems[0].bleu, systems[0].bleu_long)
    sizes = [
        test if row is None or row.lines is None else f"{test} ({row.lines:,} lines)"
        for test, row in zip_longest(tests, scored[: len(tests)])
    ]
    signatures = {}
    for system in systems:
        for row in (system.bleu, system.chrf, system.perplexity, system.aer):
            if row is not None:
                signatures[without_model(row.signature)] = row.metric
    write_file(
        folder / "history.md",
        f"Tests: {', '.join(sizes)}; the columns without a name are of {tests[0]}. "
        f"Each system: {about['steps']:,} steps of {about['batch_tokens']:,} tokens; "
        f"{about['cores']} cores, {about['processor']}, {about['device']}.\n\n"
        f"{table(systems, tests)}\n"
        f"BLEU by the number of source words, all {len(pairs):,} sentences of {' and '.join(tests)}:\n\n"
        f"{length_table(names, bins, scores)}\n"
        f"![BLEU by source length]({PICTURE}.png)\n\n"
        + "".join(f"- {metric}: `{signature}`\n" for signature, metric in signatures.items()),
    )
    draw(
        [folder / f"{PICTURE}.png", folder / f"{PICTURE}.svg"],
        bins,
        scores,
        best_luong(systems),
        f"BLEU by source length, {languages[0]}-{languages[1]}",
    )


def conditions(run: Path) -> dict[str, Any]:
    """Under which a run was trained."""
    config = load_config(run / "config.toml")
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    return {
        "steps": config.training.max_steps,
        "batch_tokens": config.training.batch_tokens,
        "device": config.training.device,
        "processor": environment["processor"],
        "cores": environment["cores"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    long = commands.add_parser("long-test", help="write FOLDER/test-long.{en,de,align}")
    long.add_argument("folder", type=Path)
    long.add_argument("--after", type=int, required=True, help="sentences of the test itself")
    long.add_argument("--draws", type=int, required=True, help="further sentences to choose from")
    long.add_argument("--words", type=int, required=True, help="least number of words")
    speed = commands.add_parser("speed", help="measure translation")
    speed.add_argument("model", type=Path)
    speed.add_argument("source", type=Path)
    speed.add_argument("--lines", type=int, default=500, help="of the source, from the first")
    speed.add_argument("--output", type=Path, required=True, help="a .json file")
    final = commands.add_parser("report", help="write the table and the picture into FOLDER")
    final.add_argument("folder", type=Path)
    final.add_argument("--systems", nargs="+", required=True)
    final.add_argument("--test", nargs="+", required=True, metavar="PREFIX", help="the first is the table's")
    final.add_argument("--languages", nargs=2, default=("en", "de"))
    given = parser.parse_args()
    if given.command == "long-test":
        count = write_long_test(given.folder, after=given.after, draws=given.draws, words=given.words)
        print(f"{given.folder}/test-long: {count:,} sentences of {given.words} words or more")
    elif given.command == "speed":
        lines = list(read_lines(given.source))[: given.lines]
        found = {
            "sentences": len(lines),
            "sentences_a_second": round(translation_speed(given.model, lines), 1),
        }
        write_file(given.output, json.dumps(found) + "\n")
        print(f"{given.model}: {found['sentences_a_second']:,.0f} sentences/s")
    else:
        report(given.folder, given.systems, given.test, tuple(given.languages))


if __name__ == "__main__":
    main()
