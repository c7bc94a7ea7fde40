"""A trained model for another engine, written only if it translates a sample as ours does.

B sentences, S and T source and target tokens with their ends, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmt.checkpoint import MANIFEST, LoadedModel, find_model, load_model, model_hash, read_manifest
from nmt.config import Config, ExportConfig, SearchConfig
from nmt.ctranslate2_engine import Engine, is_export, supported_search
from nmt.ctranslate2_model import (
    ENGINE,
    check_supported,
    require_ctranslate2,
    unsupported,
    write_export,
)
from nmt.data.corpus import read_lines
from nmt.data.prepare import read_held_out
from nmt.data.tokenizer import EOS, SPECIAL_IDS
from nmt.errors import UserError
from nmt.files import new_folder
from nmt.forced import log_probabilities
from nmt.long_sentences import split_long
from nmt.search import length_penalty
from nmt.translator import Translator

__all__ = ["Comparison", "ExportFailed", "check_config", "compare", "export", "export_run", "unsupported"]

Ids = Sequence[int]

TIE = 1e-4  # nats: two tokens so close are equally probable
FOLDER = "export"  # in a run
_SENTENCES = 200  # of the sample
_TOLERANCE = 1e-4  # nats a token, between the log-probabilities of one translation in float32
_SANE = 1.0  # the same after quantization


class ExportFailed(Exception):
    """The exported model does not translate as ours; nothing was written."""


@dataclass(frozen=True)
class Comparison:
    """What both engines make of a sample. Scores and log-probabilities are those of our model, in nats.

    In greedy search the two must agree. In beam search CTranslate2 keeps other hypotheses (see
    `nmt.ctranslate2_engine.Engine`): there its log-probabilities must be ours, its choice need not.
    """

    sample: str
    sentences: int
    greedy_equal: int
    greedy_ties: int  # at the first difference both tokens are equally probable, within TIE
    beam_size: int
    length_penalty: float
    beam_equal: int
    score_difference: float  # mean of their score less ours; beam search
    log_probability_difference: float  # the greatest a token between the engines, of one translation
    compute_type: str

    @property
    def greedy_different(self) -> int:
        return self.sentences - self.greedy_equal - self.greedy_ties

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "greedy_different": self.greedy_different}

    def lines(self) -> list[str]:
        """For a reader."""
        total = f"of {self.sentences:,} equal"
        ties = f", {self.greedy_ties:,} ties within {TIE:g}" if self.greedy_ties else ""
        difference = round(self.score_difference, 4) + 0.0  # not -0.0000
        return [
            f"sample: {self.sample}",
            f"greedy: {self.greedy_equal:,} {total} ({_percent(self.greedy_equal, self.sentences)}){ties}",
            f"beam {self.beam_size}, length penalty {self.length_penalty:g}: {self.beam_equal:,} {total} "
            f"({_percent(self.beam_equal, self.sentences)}), mean score difference {difference:+.4f}",
            f"log-probabilities: {self.log_probability_difference:.1e} a token apart at most, "
            f"computed in {self.compute_type}",
        ]


def check_config(config: Config, *, file: Path | None = None) -> None:
    """UserError where [export] asks for what cannot be done, before any work."""
    if config.export is not None:
        check_supported(config.model, file=file)
        require_ctranslate2()


def export(
    path: Path,
    output: Path,
    quantization: str = "float32",
    *,
    sample: Path | None = None,
    threads: int = 0,
) -> Comparison:
    """Write a model folder, or a run's best checkpoint, as CTranslate2 reads it (`write_export`).

    Args:
        output: folder to write; an earlier export there is replaced.
        sample: source lines to compare the engines on; without it those of the validation set, or sentences
            made of the vocabulary where that is out of reach.

    Raises:
        UserError: no model, nothing CTranslate2 can run, or `output` is something else.
        ExportFailed: the translations differ. What was at `output` stays.
    """
    folder = find_model(path)
    if is_export(folder):
        raise UserError("is an export; name the model it was made of", file=path)
    _check_output(output)
    loaded = load_model(folder)
    check_supported(loaded.config.model, file=folder)
    require_ctranslate2()
    name, sources = _sample(loaded, sample)
    with new_folder(output) as partial:
        write_export(loaded, partial, quantization)
        comparison = compare(loaded, partial, sources, name, threads=threads)
        _require_agreement(comparison, quantization)
    return comparison


def export_run(run: Path, settings: ExportConfig) -> Comparison | None:
    """RUN/export from its best checkpoint; None where that is done already."""
    best, output = find_model(run), run / FOLDER
    if is_export(output):
        manifest = read_manifest(output)
        made_of, quantization = manifest["model"].get("sha256"), manifest["export"]["quantization"]
        if made_of == model_hash(read_manifest(best)) and quantization == settings.quantization:
            return None
    return export(best, output, settings.quantization)


def compare(
    loaded: LoadedModel, folder: Path, sources: Sequence[Ids], sample: str, *, threads: int = 0
) -> Comparison:
    """Translate with both engines; `sources` are token ids without end of sentence."""
    search = supported_search(loaded.config.search)
    greedy = search.model_copy(update={"beam_size": 1, "length_penalty": 0.0})
    ours, theirs, _ = _both(loaded, folder, sources, greedy, threads)
    tokens = [(mine.tokens, other.tokens) for mine, other in zip(ours, theirs, strict=True)]
    different = [i for i, (mine, other) in enumerate(tokens) if mine != other]
    gaps = _gaps(loaded, [sources[i] for i in different], [tokens[i] for i in different])
    ours, theirs, compute_type = _both(loaded, folder, sources, search, threads)
    log_probabilities = [
        sum(row)
        for row in _token_log_probabilities(loaded, sources, [hypothesis.tokens for hypothesis in theirs])
    ]
    apart = [
        abs(own - other.log_probability) / (len(other.tokens) + 1)
        for own, other in zip(log_probabilities, theirs, strict=True)
    ]
    differences = [
        own / length_penalty(len(other.tokens) + 1, search.length_penalty, search.normalization) - mine.score
        for own, other, mine in zip(log_probabilities, theirs, ours, strict=True)
    ]
    return Comparison(
        sample=sample,
        sentences=len(sources),
        greedy_equal=len(sources) - len(different),
        greedy_ties=sum(gap <= TIE for gap in gaps),
        beam_size=search.beam_size,
        length_penalty=search.length_penalty,
        beam_equal=sum(mine.tokens == other.tokens for mine, other in zip(ours, theirs, strict=True)),
        score_difference=float(np.mean(differences)),
        log_probability_difference=max(apart),
        compute_type=compute_type,
    )


def _both(
    loaded: LoadedModel, folder: Path, sources: Sequence[Ids], search: SearchConfig, threads: int
) -> tuple[list[Any], list[Any], str]:
    """The best hypothesis of each sentence, ours and theirs."""
    engine = Engine(folder, search, threads=threads)
    ours = Translator.of(loaded, search).translate_ids(sources)
    theirs = engine.translate_ids(sources)
    return [found[0] for found in ours], [found[0] for found in theirs], engine.compute_type


def _require_agreement(found: Comparison, quantization: str) -> None:
    limit = _TOLERANCE if quantization == "float32" else _SANE
    if not found.log_probability_difference <= limit:
        raise ExportFailed(
            f"log-probabilities by CTranslate2 differ from ours by {found.log_probability_difference:.1e} a "
            f"token, in {quantization}; nothing was written"
        )
    if quantization == "float32" and found.greedy_different:
        raise ExportFailed(
            f"{found.greedy_different:,} of {found.sentences:,} greedy translations by CTranslate2 differ "
            "from ours by more than rounding; nothing was written"
        )


def _gaps(loaded: LoadedModel, sources: Sequence[Ids], pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """By how much the two tokens at the first difference of two translations differ, in nats."""
    if not pairs:
        return []
    first = []
    for one, other in pairs:
        ends = (*one, EOS), (*other, EOS)
        first.append(next(i for i, (a, b) in enumerate(zip(*ends, strict=False)) if a != b))
    left, right = (
        _token_log_probabilities(loaded, sources, [pair[side] for pair in pairs]) for side in (0, 1)
    )
    return [abs(a[place] - b[place]) for a, b, place in zip(left, right, first, strict=True)]


def _token_log_probabilities(
    loaded: LoadedModel, sources: Sequence[Ids], targets: Sequence[Ids]
) -> list[list[float]]:
    """Of each target token and of the end of sentence, by force-decoding with our model."""
    return [row.tolist() for row in log_probabilities([loaded], sources, targets, tag="")]


def _sample(loaded: LoadedModel, file: Path | None) -> tuple[str, list[list[int]]]:
    """What it is, and its token ids; lines that are too long are split as in translation."""
    lines: list[str] = []
    if file is not None:
        name, lines = str(file), [line for line in read_lines(file) if line.strip()]
        if not lines:
            raise UserError("has no text; name a file of source lines", file=file)
    else:
        data = loaded.config.data
        try:
            pairs = read_held_out(data, data.validation)
            lines = [source for source, _ in pairs if source.strip()][:_SENTENCES]
            name = f"{len(lines):,} lines of {data.validation}"
        except UserError:
            pass  # the model may be far from where it was trained
    most = Translator.of(loaded).most_source_tokens
    sources = [
        part
        for ids in loaded.source_tokenizer.encode_all(lines)
        if ids
        for part in split_long(ids, loaded.source_tokenizer, most)
    ]
    if sources:
        return name, sources
    chance = random.Random(1)
    ids = [i for i in range(len(loaded.source_tokenizer)) if i not in SPECIAL_IDS]
    made = [chance.choices(ids, k=chance.randint(1, min(20, most))) for _ in range(_SENTENCES)]
    return f"{_SENTENCES} sentences made of the vocabulary (the validation set is out of reach)", made


def _check_output(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UserError("is no folder; choose another --output", file=output)
    if output.is_dir() and any(output.iterdir()):
        if (output / MANIFEST).is_file() and is_export(output):
            return
        raise UserError(f"exists and is no export for {ENGINE}; choose another --output", file=output)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
