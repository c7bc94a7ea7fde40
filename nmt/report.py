"""The facts of a report on one run or several: one structure of plain JSON values, without any HTML.

L layers, H heads, T and S target and source tokens with their ends.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nmt import __version__
from nmt.alignment import default_view
from nmt.assessment import Measured, assess
from nmt.checkpoint import LoadedModel, load_model
from nmt.data.corpus import is_tsv
from nmt.data.tokenizer import EOS, SPACE
from nmt.errors import UserError
from nmt.evaluation import check
from nmt.forced import attention
from nmt.metric_set import MetricOptions, MetricSet, tokenizer_here
from nmt.model_evaluation import ModelUnderTest
from nmt.models import parameter_counts
from nmt.report_runs import (
    ReportedRun,
    configuration,
    cost,
    curves,
    read_runs,
    shown_command,
    training_command,
)
from nmt.report_sentences import FLAGS, flags_of, sentence_lists
from nmt.report_tests import Comparable, choose_test_set
from nmt.report_translations import Translated, translate
from nmt.sentences import sentence_scores

SENTENCE_METRIC = "chrF2"
MOST_ATTENTION = 6  # sentences whose attention is drawn
MOST_TOKENS = 45  # of either side of them
PARTS = 100  # weights are written in hundredths


@dataclass(frozen=True)
class Observer:
    """Who is told how far it is, and what went wrong without stopping it."""

    tell: Callable[[str], None] = lambda _: None
    note: Callable[[str], None] = lambda _: None
    warn: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class _System:
    """A run and its translation of the lines that are compared."""

    run: ReportedRun
    loaded: LoadedModel
    translated: Translated
    texts: list[str]
    tokens: list[list[str]]
    parts: list[int]


def report(
    folders: Sequence[Path],
    *,
    test: str | None = None,
    max_sentences: int = 25,
    lines: Sequence[int] = (),
    device: str = "cpu",
    command: Sequence[str] = (),
    observer: Observer | None = None,
) -> dict[str, Any]:
    """All that a report says.

    Args:
        folders: of runs; scores of the others are compared with the first one's.
        test: prefix of a test set; else the runs' first, or their validation set.
        max_sentences: of each list, such as the best.
        lines: of the test set, from 1, whose attention is drawn; without them a few of the lists.
        device: where translation is done.
        command: that made the report.

    Raises:
        UserError: a folder is no run, a run has no validation, the runs share no test sentence, or not a line
            that is asked for.
    """
    observer = observer or Observer()
    runs = read_runs(folders)
    chosen = choose_test_set(runs, test)
    asked = _places_of(lines, chosen)
    for note in chosen.notes:
        observer.note(note)
    sources = [chosen.sets[0].pairs[place][0] for place in chosen.places[0]]
    references = [chosen.sets[0].pairs[place][1] for place in chosen.places[0]]
    check(len(sources), [references], names=[chosen.sets[0].prefix])
    systems = [_translate(run, chosen, number, device, observer) for number, run in enumerate(runs)]
    metrics = MetricSet([references], MetricOptions(tokenizer_here(runs[0].config.data.target_language)))
    observer.tell("scores")
    measured = _measure(systems, metrics, sources, references, observer)
    rows = []
    for one in measured:
        under_test = ModelUnderTest(next(s.loaded for s in systems if s.run.name == one.system), {})
        rows.append(asdict(one.row(chosen.sets[0].name, metrics, under_test.about())) | one.details())
    sentences = _sentences(systems, metrics, sources, references, chosen.places[0], max_sentences, asked)
    observer.tell("attention")
    return {
        "nmt": __version__,
        "command": shown_command(command) if command else None,
        "runs": [cost(system.run, parameter_counts(system.loaded.model)) for system in systems],
        "configuration": configuration(runs),
        "curves": curves(runs),
        "test_set": {
            "name": chosen.sets[0].name,
            "lines": len(sources),
            "notes": chosen.notes,
            "files": [
                {"run": run.name, **row}
                for run, of in zip(runs, chosen.sets, strict=True)
                for row in of.rows()
            ],
        },
        "scores": rows,
        "translation": [
            {
                "run": system.run.name,
                "lines": len(system.translated.texts),
                "seconds": system.translated.seconds,
                "lines_per_second": round(
                    len(system.translated.texts) / max(system.translated.seconds, 1e-3), 1
                ),
                "device": system.translated.device,
                "threads": system.translated.threads,
                "beam_size": system.run.config.search.beam_size,
                "reused": system.translated.reused,
                "in_parts": sum(count > 1 for count in system.parts),
            }
            for system in systems
        ],
        "sentences": sentences,
        "attention": _attention(systems, sentences, asked, observer),
        "commands": [
            {
                "run": system.run.name,
                "train": training_command(system.run),
                "evaluate": _evaluation_command(system.run, chosen, number),
            }
            for number, system in enumerate(systems)
        ],
    }


def _translate(run: ReportedRun, chosen: Comparable, number: int, device: str, observer: Observer) -> _System:
    """The whole of the run's test set, which other reports may have use for, and of it what is compared."""
    loaded = load_model(run.model_folder, device)
    sources = [source for source, _ in chosen.sets[number].pairs]
    translated = translate(
        loaded,
        run.folder,
        run.model_hash,
        sources,
        tell=lambda done: observer.tell(f"{run.name}: {done:,} of {len(sources):,} lines translated"),
        warn=observer.warn,
    )
    at = chosen.places[number]
    return _System(
        run,
        loaded,
        translated,
        [translated.texts[place] for place in at],
        [translated.tokens[place] for place in at],
        [translated.parts[place] for place in at],
    )


def _measure(
    systems: Sequence[_System],
    metrics: MetricSet,
    sources: Sequence[str],
    references: Sequence[str],
    observer: Observer,
) -> list[Measured]:
    """Scores with intervals, by source length, against the first run; perplexity last."""
    under_test = {system.run.name: ModelUnderTest(system.loaded, {}) for system in systems}
    found = assess(
        {system.run.name: system.texts for system in systems},
        metrics,
        confidence=True,
        tests=("bootstrap",) if len(systems) > 1 else (),
        sources=sources,
        suffixes={name: one.identity for name, one in under_test.items()},
    )
    for name, one in under_test.items():
        perplexity, left_out = one.perplexity(sources, references, confidence=True)
        if left_out:
            observer.warn(f"{name}: {left_out:,} pairs are too long to be force-decoded for the perplexity")
        if perplexity is not None:
            found.append(Measured(name, perplexity))
    return found


def _sentences(
    systems: Sequence[_System],
    metrics: MetricSet,
    sources: Sequence[str],
    references: Sequence[str],
    places: Sequence[int],
    most: int,
    asked: Sequence[int] = (),
) -> dict[str, Any]:
    """Lists of lines and, once each, the lines that are in them, and those `asked` for."""
    scores, flags = {}, {}
    for system in systems:
        name = system.run.name
        scores[name] = sentence_scores(system.texts, metrics)[SENTENCE_METRIC]
        encode = system.loaded.target_tokenizer.encode_all
        of_references = system.loaded.target_tokenizer.pieces
        flags[name] = [
            flags_of(source, text, reference, tokens, of_references(ids))
            for source, text, reference, tokens, ids in zip(
                sources, system.texts, references, system.tokens, encode(list(references)), strict=True
            )
        ]
    lists = sentence_lists(scores, flags, references, sources, most)
    shown = sorted({place for found in lists for place in found["places"]} | set(asked))
    row_of = {place: row for row, place in enumerate(shown)}
    signatures = {name: str(metric.get_signature()) for name, metric in metrics.of_sentences().items()}
    return {
        "metric": SENTENCE_METRIC,
        "signature": signatures[SENTENCE_METRIC],
        "flags": FLAGS,
        "counts": {
            name: {flag: sum(flag in of_line for of_line in found) for flag in FLAGS}
            for name, found in flags.items()
        },
        "lists": [
            {
                **{key: found[key] for key in ("kind", "title", "of")},
                "rows": [row_of[place] for place in found["places"]],
            }
            for found in lists
        ],
        "rows": [
            {
                "place": place,
                "line": places[place] + 1,
                "source": sources[place],
                "reference": references[place],
                "systems": [
                    {
                        "run": system.run.name,
                        "text": system.texts[place],
                        "score": round(scores[system.run.name][place], 2),
                        "flags": flags[system.run.name][place],
                        "parts": system.parts[place],
                    }
                    for system in systems
                ],
            }
            for place in shown
        ],
    }


def _places_of(lines: Sequence[int], chosen: Comparable) -> list[int]:
    """Places among the lines that are compared, each once."""
    place_of = {line + 1: place for place, line in enumerate(chosen.places[0])}
    for line in lines:
        if line not in place_of:
            raise UserError(
                f"has no line {line} that is compared; choose another --line", file=chosen.sets[0].prefix
            )
    return list(dict.fromkeys(place_of[line] for line in lines))


def _attention(
    systems: Sequence[_System], sentences: dict[str, Any], asked: Sequence[int], observer: Observer
) -> dict[str, Any]:
    """The attention over the source of a few of the sentences that are shown, as `default_view` has it: of
    the head that was trained on alignments, else the mean of all.

    They are those asked for, else taken from the lists in turns, if every run wrote them in one part and they
    are not too long to be seen.
    """
    with_attention = [system for system in systems if system.loaded.model.recorded_a_layer]
    without = [system.run.name for system in systems if not system.loaded.model.recorded_a_layer]
    rows = sentences["rows"]
    encoded = {
        system.run.name: system.loaded.source_tokenizer.encode_all([row["source"] for row in rows])
        for system in with_attention
    }
    chosen: list[tuple[int, str]] = []  # row, title of its list
    turns = max((len(found["rows"]) for found in sentences["lists"]), default=0)
    row_of = {row["place"]: number for number, row in enumerate(rows)}
    candidates: Iterable[tuple[int, str]] = (
        (found["rows"][turn], found["title"])
        for turn in range(turns)
        for found in sentences["lists"]
        if turn < len(found["rows"])
    )
    if asked:
        candidates = [(row_of[place], "asked for") for place in asked]
    for number, title in candidates:
        if (len(chosen) == MOST_ATTENTION and not asked) or not with_attention:
            break
        place = rows[number]["place"]
        fits = all(
            system.parts[place] == 1
            and 0 < len(system.tokens[place]) <= MOST_TOKENS
            and 0 < len(encoded[system.run.name][number]) <= MOST_TOKENS
            for system in with_attention
        )
        if fits and number not in [row for row, _ in chosen]:
            chosen.append((number, title))
        elif asked:
            observer.warn(
                f"the attention of line {rows[number]['line']} is not drawn: the line or a translation is "
                f"empty, above {MOST_TOKENS} tokens or was made in parts"
            )
    drawn: list[dict[str, Any]] = [
        {"row": number, "line": rows[number]["line"], "why": title, "maps": []} for number, title in chosen
    ]
    for system in with_attention if chosen else []:
        target, source = system.loaded.target_tokenizer, system.loaded.source_tokenizer
        sources = [encoded[system.run.name][number] for number, _ in chosen]
        targets = [[target.id_of(t) for t in system.tokens[rows[number]["place"]]] for number, _ in chosen]
        maps: list[dict[str, Any]] = [{}] * len(chosen)
        view = default_view(system.loaded)
        for index, weights_LHTS in attention(system.loaded, sources, targets):
            weights_TS = view.of(weights_LHTS)
            maps[index] = {
                "run": system.run.name,
                "view": str(view),
                "rows": _shown(target.pieces([*targets[index], EOS])),
                "columns": _shown(source.pieces([*sources[index], EOS])),
                "weights": (weights_TS * PARTS).round().astype(int).tolist(),
            }
        for one, found in zip(drawn, maps, strict=True):
            one["maps"].append(found)
    return {"sentences": drawn, "without": without, "parts": PARTS}


def _shown(pieces: Sequence[str]) -> list[str]:
    return [piece.replace(SPACE, "·") for piece in pieces]


def _evaluation_command(run: ReportedRun, chosen: Comparable, number: int) -> str | None:
    """That gives the same scores; none where only a part of the test set is compared, or it is a .tsv."""
    test = chosen.sets[number]
    if not chosen.is_whole or is_tsv(test.prefix):
        return None
    source, reference = (str(file) for file in test.files)
    return shlex.join(["nmt", "evaluate", str(run.folder), "--source", source, "--reference", reference])
