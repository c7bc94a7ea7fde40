"""The work of `nmt evaluate`: translations are made and measured, what was found is written and printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.cli import output as out
from nmt.cli import scores
from nmt.cli.ensemble import load_ensemble
from nmt.cli.evaluation import Options, Texts
from nmt.cli.outputs import Outputs
from nmt.errors import UserError, counted

if TYPE_CHECKING:
    from nmt.assessment import Measured
    from nmt.metric_set import MetricSet
    from nmt.model_evaluation import ModelUnderTest
    from nmt.results import Row


@dataclass(frozen=True)
class Found:
    """All that was measured."""

    measured: list[Measured]
    hypotheses: Mapping[str, list[str]]  # by the names of systems
    metrics: MetricSet
    about: Mapping[str, Any]  # the model, in rows of results
    suffixes: Mapping[str, str]  # of signatures, by the names of systems

    def rows(self, test_set: str) -> list[Row]:
        """As results tables have them, one of each number."""
        return [one.row(test_set, self.metrics, self.about) for one in self.measured]


def try_outputs(options: Options) -> Outputs:
    """The files to write.

    Raises:
        UserError: one cannot be written, is an input, or has two options.
    """
    from nmt.results import read_rows

    tables: dict[str, Path | None] = {"--results": options.results}
    if options.results is not None and not options.results.is_dir():
        read_rows(options.results)
        tables["the table of --results"] = options.results.with_suffix(".md")
    gold = [] if options.gold_alignment is None else [options.gold_alignment]
    return Outputs(
        {"--output": options.output, "--sentences": options.sentences, **tables},
        [*options.files, *options.training, *gold],
    )


def measure(options: Options, texts: Texts, outputs: Outputs) -> Found:
    """Translate, if there is a model, and measure. The translation is written before it is measured.

    Raises:
        UserError: metrics, training text or models are not there or do not go together.
    """
    from nmt.assessment import assess

    # All that can be wrong is found before the minutes that translation takes.
    metrics = _metrics(options, texts)
    counts = _training_words(options, metrics)
    hypotheses, suffixes = dict(texts.hypotheses), {}
    about: dict[str, Any] = {}
    of_model: list[Measured] = []
    if options.model is not None:
        assert texts.sources is not None
        tested = _load(options.model, options)
        name = options.name or _model_name(options.model)
        of_model = _force_decode(tested, name, options, texts, texts.sources)
        hypotheses[name] = _translate(tested, texts.sources)
        outputs.write(options.output, "".join(f"{line}\n" for line in hypotheses[name]))
        about = tested.about()
        suffixes[name] = tested.identity + tested.search_signature
    measured = assess(
        hypotheses,
        metrics,
        confidence=options.confidence,
        tests=options.tests,
        sources=texts.sources if options.by_length else None,
        training=counts,
        suffixes=suffixes,
    )
    return Found(measured + of_model, hypotheses, metrics, about, suffixes)


def write(options: Options, texts: Texts, found: Found, outputs: Outputs) -> None:
    """The table of sentences and that of results, as far as asked for."""
    from nmt.results import add_rows
    from nmt.sentences import sentence_table

    results, title = options.results, options.title
    if options.sentences is not None:
        table = sentence_table(
            found.hypotheses, found.metrics, test_set=title, sources=texts.sources, suffixes=found.suffixes
        )
        outputs.write(options.sentences, "".join(f"{line}\n" for line in table))
    if results is not None:
        outputs.attempt(results, lambda: add_rows(results, found.rows(title)))


def print_found(options: Options, found: Found, *, json: bool) -> None:
    """Tables, or one JSON document."""
    if json:
        pairs = zip(found.rows(options.title), found.measured, strict=True)
        out.result_json([asdict(row) | one.details() for row, one in pairs])
        return
    title = f"{options.title}, {counted(found.metrics.size, 'line')}"
    scores.print_scores(found.measured, title, confidence=options.confidence)
    scores.print_parts(found.measured, title)


def _metrics(options: Options, texts: Texts) -> MetricSet:
    from nmt.metric_set import MetricOptions, MetricSet

    extra = []
    if options.comet is not None:
        extra = [_comet(options.comet, texts.sources or [], texts.references, options.device)]
    how = MetricOptions(texts.tokenize, options.lowercase, options.chrf_lowercase, options.ter_case_sensitive)
    return MetricSet(texts.references, how, extra=extra)


def _training_words(options: Options, metrics: MetricSet) -> Counter[str] | None:
    """How often training had each word, for --training."""
    from nmt.breakdown import count_words
    from nmt.model_evaluation import training_lines

    if not options.training:
        return None
    counts = count_words((line for path in options.training for line in training_lines(path)), metrics)
    if not counts:
        raise UserError("has no words; give the target side of the training text", file=options.training[0])
    return counts


def _load(model: Path, options: Options) -> ModelUnderTest:
    """Models that can translate together as is wanted, else UserError."""
    from nmt.checkpoint import load_model
    from nmt.device import choose_device
    from nmt.model_evaluation import ModelUnderTest

    loaded = load_model(model, choose_device(options.device))
    others = load_ensemble(options.ensemble, loaded, options.device)
    tested = ModelUnderTest(loaded, options.settings_of_search(), others)
    tested.translator.prepare()  # says what does not go together
    return tested


def _translate(tested: ModelUnderTest, sources: list[str]) -> list[str]:
    from nmt.cli.progress import Progress

    progress = Progress(len(sources))
    found = tested.translate(sources, progress.found)
    progress.show(len(sources))
    progress.end()
    return found


def _force_decode(
    tested: ModelUnderTest, name: str, options: Options, texts: Texts, sources: list[str]
) -> list[Measured]:
    """Perplexity of the reference, and the alignment error rate where there is a gold alignment."""
    from nmt.assessment import Measured

    targets, gold, confidence = texts.references[0], texts.gold, options.confidence
    found = []
    perplexity, left_out = tested.perplexity(sources, targets, confidence=confidence)
    if left_out:
        out.warn(f"{left_out:,} of {len(sources):,} pairs are too long for the model to be force-decoded")
    if perplexity is not None:
        found.append(Measured(name, perplexity))
    if gold is not None:
        alignment = options.reading().align(tested.loaded, sources, targets, gold)
        score = tested.error_rate(alignment, gold, options.words, confidence=confidence)
        found.append(Measured(name, score))
    return found


def _comet(model: str, sources: list[str], references: list[list[str]], device: str) -> Any:
    from nmt.comet import comet_metric
    from nmt.device import choose_device

    return comet_metric(model, sources, references, device=str(choose_device(device)))


def _model_name(path: Path) -> str:
    """RUN/best and RUN/checkpoints/step-1 are called RUN."""
    parts = [p for p in path.parts if p not in ("best", "last", "checkpoints") and not p.startswith("step-")]
    return parts[-1] if parts else str(path)
