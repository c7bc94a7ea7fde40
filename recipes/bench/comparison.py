"""One model, several engines: the same weights, lines, beam and threads, in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.checkpoint import LoadedModel, find_model, load_model
from nmt.ctranslate2_model import unsupported, write_export
from nmt.errors import UserError, install
from nmt.evaluation import bleu
from nmt.translator import Translator

from . import huggingface
from .corpora import TestSet
from .engines import Spec, load, our_precisions
from .worker import Worker

BATCHES = (16, 32, 64, 128, 256)
GPU_BATCHES = (64, 128, 256, 512, 1024)
_CHECKED = 100  # sentences that Hugging Face must translate as we do, greedily
_FIRST = 1_000  # lines of the first pass, which warms up and shows what memory so many lines take

Tell = Callable[[str], None]


@dataclass
class Result:
    """Of one engine; `words`, `tokens`, `equal` and `bleu` are of the last pass."""

    spec: Spec
    lines: int
    computes: str
    seconds: list[float] = field(default_factory=list)
    words: int = 0
    tokens: int = 0
    texts: list[str] = field(default_factory=list)
    equal: float | None = None  # share of lines with the translation of the first engine
    bleu: float | None = None
    mib_first: float | None = None  # after `_FIRST` lines
    mib: float | None = None

    @property
    def speed(self) -> float:
        """Sentences a second."""
        return self.lines / statistics.median(self.seconds)

    def as_row(self, baseline: Result) -> dict[str, Any]:
        return {
            "engine": self.spec.name,
            "settings": self.spec.settings,
            "computes": self.computes,
            "lines": self.lines,
            "sentences_per_second": self.speed,
            # Passes of one turn are neighbours in time: the median of their ratios.
            "ratio": statistics.median(
                self.lines / mine / (baseline.lines / other)
                for mine, other in zip(self.seconds, baseline.seconds, strict=True)
            ),
            "seconds": self.seconds,
            "words": self.words,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens / self.lines * self.speed,
            "equal": self.equal,
            "bleu": self.bleu,
            "peak_mib_1000": self.mib_first,
            "peak_mib": self.mib,
        }


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    beam_size: int = 5
    threads: int = 1
    repeats: int = 3
    tuning_lines: int = 1_000
    slow_share: int = 10  # Hugging Face gets one line in so many
    device: str = "cpu"


def compare(model: Path, lines: TestSet, plan: Plan, folder: Path, tell: Tell) -> dict[str, Any]:
    """A table: `model`, `test_set`, `notes` and `rows`, the first ours in float32."""
    loaded = load_model(model)
    notes: list[str] = []
    lines = _that_fit(loaded, lines, notes)
    common: dict[str, Any] = dict(beam_size=plan.beam_size, threads=plan.threads, device=plan.device)
    ours = str(find_model(model))
    specs = [Spec("nmt", ours, precision, **common) for precision in our_precisions(plan.device)]
    specs += _ctranslate2(loaded, lines, plan, folder, common, notes, tell)
    specs += _huggingface(loaded, lines, plan, common, notes, tell)
    results = _in_turns(specs, lines, plan, tell)
    if plan.device != "cpu":
        for spec in specs:
            if spec.engine == "nmt":
                share = busy_share(spec, lines.part(plan.tuning_lines).sources)
                notes.append(f"{spec.name}: the GPU computes {100 * share:.0f} % of the time")
    for result in results:
        first = dict(zip(lines.sources, results[0].texts, strict=True))
        whole = result.lines == len(lines.sources)
        sources = lines.sources if whole else slow_part(lines, plan).sources
        same = sum(first[line] == text for line, text in zip(sources, result.texts, strict=True))
        result.equal = same / len(sources)
        if whole and lines.references:
            result.bleu = bleu(result.texts[: len(lines.references)], lines.references)
    return {
        "model": str(model),
        "architecture": loaded.config.model.architecture,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "test_set": lines.name,
        "beam_size": plan.beam_size,
        "length_penalty": loaded.config.search.length_penalty,
        "device": plan.device,
        "threads": plan.threads,
        "repeats": plan.repeats,
        "notes": notes,
        "rows": [result.as_row(results[0]) for result in results],
    }


def _that_fit(loaded: LoadedModel, lines: TestSet, notes: list[str]) -> TestSet:
    """Without those that nmt would split and the other engines would not."""
    most = Translator.of(loaded).most_source_tokens
    encoded = loaded.source_tokenizer.encode_all(lines.sources)
    kept = [i for i, ids in enumerate(encoded) if len(ids) <= most]
    if len(kept) == len(encoded):
        return lines
    if not kept:
        raise UserError(f"all lines are longer than the {most} tokens the model takes; give it others")
    notes.append(f"{len(encoded) - len(kept):,} lines of more than {most} tokens are left out")
    references = [lines.references[i] for i in kept if i < len(lines.references)]
    return TestSet(lines.name, [lines.sources[i] for i in kept], references)


def slow_part(lines: TestSet, plan: Plan) -> TestSet:
    return lines.part(max(100, len(lines.sources) // plan.slow_share))


def _in_turns(specs: Sequence[Spec], lines: TestSet, plan: Plan, tell: Tell) -> list[Result]:
    """All engines loaded, each in a process; a pass of each, then the next pass."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(spec)) for spec in specs]
        results = []
        for worker in workers:
            part = slow_part(lines, plan) if worker.spec.engine == "huggingface" else lines
            result = Result(worker.spec, len(part.sources), worker.computes)
            first = worker.translate(part.sources[:_FIRST], look=0.05)
            result.mib_first = first["peak_mib"] if len(part.sources) >= _FIRST else None
            results.append(result)
        for turn in range(plan.repeats):
            for worker, result in zip(workers, results, strict=True):
                part = slow_part(lines, plan) if worker.spec.engine == "huggingface" else lines
                found = worker.translate(part.sources)
                result.seconds.append(found["seconds"])
                result.texts, result.tokens = found["texts"], found["tokens"]
                result.mib = max(result.mib or 0.0, found["peak_mib"])
                result.words = sum(len(text.split()) for text in result.texts)
            speeds = ", ".join(f"{r.spec.name} {r.lines / r.seconds[-1]:,.0f}" for r in results)
            tell(f"pass {turn + 1} of {plan.repeats}, sentences/s: {speeds}")
    return results


def _ctranslate2(
    loaded: LoadedModel,
    lines: TestSet,
    plan: Plan,
    folder: Path,
    common: dict[str, Any],
    notes: list[str],
    tell: Tell,
) -> list[Spec]:
    """float32 and int8, as it comes and with more patience, each with its best batches and threads."""
    reasons = unsupported(loaded.config.model)
    try:
        import ctranslate2
    except ImportError:
        reasons = [f"anything: it is not installed ({install('bench')})"]
    else:
        if plan.device != "cpu" and not ctranslate2.get_cuda_device_count():
            reasons = ["on this GPU: this build of it knows none"]
    if reasons:
        notes.append(f"CTranslate2 cannot run {'; '.join(reasons)}")
        return []
    tuning = lines.part(plan.tuning_lines).sources
    specs = []
    for precision in ("float32", "int8") if plan.device == "cpu" else ("float32", "bfloat16", "float16"):
        export = folder / precision
        export.mkdir(parents=True)
        write_export(loaded, export, precision)
        for patience in (1.0, 2.0):
            spec = Spec("ctranslate2", str(export), precision, patience=patience, **common)
            workers = sorted({1, plan.threads}) if plan.device == "cpu" else [1]
            specs.append(_fastest(spec, tuning, workers, tell))
    return specs


def _huggingface(
    loaded: LoadedModel,
    lines: TestSet,
    plan: Plan,
    common: dict[str, Any],
    notes: list[str],
    tell: Tell,
) -> list[Spec]:
    """With its best batches, if its greedy translations are ours."""
    reason = huggingface.unsupported(loaded.config.model)
    try:
        import transformers  # noqa: F401
    except ImportError:
        reason = f"transformers is not installed ({install('bench')})"
    if reason is not None:
        notes.append(reason)
        return []
    checked = loaded.source_tokenizer.encode_all(lines.part(_CHECKED).sources)
    equal = equal_greedy(loaded, checked)
    notes.append(f"Hugging Face: {equal} of {len(checked)} greedy translations are ours")
    tell(notes[-1])
    if equal < len(checked):
        notes.append("Hugging Face is not timed: it does not compute the same")
        return []
    part = slow_part(lines, plan)
    tuning = part.part(max(100, len(part.sources) // 4)).sources
    precisions = ["float32"] if plan.device == "cpu" else ["float32", "bfloat16"]
    specs = [Spec("huggingface", str(loaded.folder), precision, **common) for precision in precisions]
    return [_fastest(spec, tuning, [1], tell) for spec in specs]


def equal_greedy(loaded: LoadedModel, sources: Sequence[Sequence[int]]) -> int:
    """How many greedy translations by Hugging Face are ours; lengths by themselves, so that limits agree."""
    search = loaded.config.search.model_copy(update={"beam_size": 1, "length_penalty": 0.0})
    translator = Translator.of(loaded, search)
    ours = translator.translate_ids(sources)
    longest = max(map(len, sources)) + 1
    positions = max(longest, translator.longest(longest))
    theirs = huggingface.Generate(
        huggingface.convert(loaded.model, loaded.config.model, positions),  # type: ignore[arg-type]
        search,
        word_level=loaded.target_tokenizer.word_level,
    )
    equal = 0
    for length in {len(source) for source in sources}:
        places = [i for i, source in enumerate(sources) if len(source) == length]
        found = theirs.translate_ids([sources[i] for i in places], len(places))
        equal += sum(tuple(ids) == ours[i][0].tokens for i, ids in zip(places, found, strict=True))
    return equal


def _fastest(spec: Spec, lines: list[str], workers: Sequence[int], tell: Tell) -> Spec:
    """The best of batch sizes and of ways to deal out the threads, measured after a warm-up."""
    speeds: dict[Spec, float] = {}
    for count in workers:
        with Worker(dataclasses.replace(spec, workers=count)) as worker:
            worker.translate(lines[: max(1, len(lines) // 5)])
            for batch in BATCHES if spec.device == "cpu" else GPU_BATCHES:
                seconds = worker.translate(lines, batch)["seconds"]
                speeds[dataclasses.replace(worker.spec, batch=batch)] = len(lines) / seconds
    best = max(speeds, key=lambda tried: speeds[tried])
    tell(f"{best.name}: best with {best.settings} ({speeds[best]:,.0f} sentences/s)")
    return best


def busy_share(spec: Spec, lines: list[str]) -> float:
    """The share of the time of a pass in which a GPU computes, by the profiler, after a pass to warm up."""
    import torch

    engine = load(spec)
    engine.translate(lines, spec.batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        began = time.perf_counter()
        engine.translate(lines, spec.batch)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    kernels = sum(event.self_device_time_total for event in profile.key_averages())
    return float(kernels / 1e6 / seconds)


def latency(model: Path, line: str, repeats: int, options: Sequence[str] = ()) -> float:
    """Seconds from the start of `nmt translate MODEL` to its end, with one line on standard input."""
    command = [
        sys.executable,
        "-P",
        "-c",
        "from nmt.cli.main import main; main()",
        "translate",
        str(model),
        *options,
    ]
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(command, input=f"{line}\n".encode(), check=True, stdout=subprocess.PIPE)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def latencies(
    model: Path, line: str, repeats: int, notes: Sequence[str], device: str = "cpu"
) -> Iterator[tuple[str, float]]:
    """Of the commands that there are, by name."""
    yield "nmt translate", latency(model, line, repeats, ["--device", device])
    if device != "cpu":
        return
    if not any(note.startswith("CTranslate2 cannot") for note in notes):
        yield "nmt translate --engine ctranslate2", latency(model, line, repeats, ["--engine", "ctranslate2"])
