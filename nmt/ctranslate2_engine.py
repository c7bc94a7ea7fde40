"""Search by CTranslate2 in the place of `nmt.translator.Translator.translate_ids`, on an exported folder."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.checkpoint import (
    CONFIG,
    MANIFEST,
    LoadedModel,
    check_files,
    find_model,
    load_model,
    read_manifest,
)
from nmt.config import SearchConfig
from nmt.config_file import load_config
from nmt.ctranslate2_model import require_ctranslate2, vocabulary, write_export
from nmt.data.prepared import load_tokenizers
from nmt.data.tokenizer import BOS, PAD, UNK
from nmt.errors import UserError
from nmt.search import Hypothesis, length_penalty

Ids = Sequence[int]

# What `Engine` does as our own search does. Any other key must have its default.
_SEARCH_KEYS = frozenset(
    {
        *("beam_size", "length_penalty", "normalization", "max_length_factor", "max_length_offset"),
        *("max_source_tokens", "batch_tokens"),
    }
)
# With a length penalty, finished hypotheses to wait for, in beams: with one, 6 of 600 translations were worse
# than ours, with 1.4 and more none. It costs a third of the time.
_PATIENCE = 2.0
# CTranslate2 adds this, or less, for what cannot be.
_IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class _Mode:
    """How sentences are searched together."""

    most: int  # tokens of a hypothesis, its end counted
    without_special: bool = False
    wide: bool = False


class Engine:
    """An exported folder, and how to search with it.

    Greedy search is ours exactly. CTranslate2's beam search differs from `nmt.beam`, whatever the options:

    - A hypothesis that finishes leaves its place: `beam_size` unfinished ones are kept to the end, where
      ours are fewer by those that have finished. So it looks at more, and seldom finds another best one.
    - It stops at so many finished hypotheses, here twice `beam_size`, or without a length penalty as soon as
      the best candidate of all ends; ours goes on while an unfinished one can still win.
    - It divides by |Y|^alpha to choose what to return. Here that is undone, and hypotheses have our scores
      and their order: the sum of log-probabilities with the end of sentence, divided by
      ((5 + |Y|) / 6)^alpha (Wu et al. 2016, eq. 14).
    - What it excludes (`disable_unk`, `suppress_sequences`) is taken out before the softmax, which changes
      all probabilities. So nothing is excluded at first, and a sentence whose translation then holds <pad>,
      <s> or <unk> is searched once more without them and scored by force-decoding.

    The limit of length is one a call, so sentences of one length go together. It cannot do ensembles,
    attention (`nmt.unknown`), nor any key of SearchConfig beside beam_size, length_penalty, normalization,
    max_length_factor, max_length_offset, max_source_tokens and batch_tokens.
    """

    def __init__(
        self,
        folder: Path,
        search: SearchConfig | None = None,
        *,
        n_best: int = 1,
        threads: int = 0,
        device: str = "cpu",
    ):
        """
        Args:
            folder: as `nmt.ctranslate2_model.write_export` writes it; it may go once this has returned.
            search: that of the folder's config.toml without it.
            n_best: hypotheses of a sentence; at most `search.beam_size`.
            threads: of one translation; 0: CTranslate2's choice.

        Raises:
            UserError: this is no export, CTranslate2 is not installed, or cannot search like that.
        """
        manifest = read_manifest(folder)
        export = manifest.get("export")
        if not isinstance(export, dict):
            raise UserError("is not an export; write one with `nmt export`", file=folder)
        self.search = search or load_config(folder / CONFIG).search
        _check_search(self.search)
        if not 1 <= n_best <= self.search.beam_size:
            raise ValueError(f"n_best = {n_best} is not between 1 and beam_size = {self.search.beam_size}")
        self.n_best = n_best
        source, target = load_tokenizers(folder)
        self._source = vocabulary(source)
        self._target = vocabulary(target)
        self._target_id = {piece: token_id for token_id, piece in enumerate(self._target)}
        self._forbidden = frozenset((PAD, BOS) if target.word_level else (PAD, BOS, UNK))
        self.most_target_tokens: int | None = export["positions"]  # end of sentence included
        positions = self.search.max_source_tokens + 1 if export["positions"] is None else export["positions"]
        self.most_source_tokens = min(self.search.max_source_tokens, positions - 1)
        engine = require_ctranslate2()
        engine.set_log_level(logging.ERROR)  # it warns of types that the processor lacks, see compute_type
        try:
            self._translator: Any = engine.Translator(
                str(folder), device=device, inter_threads=1, intra_threads=threads
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"CTranslate2 cannot load it: {error}", file=folder) from None

    @property
    def compute_type(self) -> str:
        """In which numbers it computes: where the processor lacks those of the export, others."""
        return str(self._translator.compute_type)

    def longest(self, source_tokens: int) -> int:
        """The most tokens of the translation of so many source tokens, end of sentence included."""
        most = self.search.most_tokens(source_tokens)
        return most if self.most_target_tokens is None else min(most, self.most_target_tokens)

    def translate_ids(self, sources: Sequence[Ids]) -> list[list[Hypothesis]]:
        """The n best hypotheses of each source (token ids without end of sentence), best first.

        Raises:
            UserError: the weights give no finite scores.
        """
        for source in sources:
            if len(source) > self.most_source_tokens:
                raise ValueError(f"{len(source)} tokens are more than {self.most_source_tokens}")
        result: list[list[Hypothesis]] = [[] for _ in sources]
        waiting = {i: _Mode(self.longest(len(source))) for i, source in enumerate(sources)}
        while waiting:
            found = self._search(sources, waiting)
            again: dict[int, _Mode] = {}
            unscored: list[tuple[int, tuple[int, ...]]] = []
            for index, mode in waiting.items():
                candidates = found[index]
                truncated = any(len(tokens) >= mode.most - 1 for tokens, _ in candidates)
                if mode.without_special:
                    candidates = [(t, s) for t, s in candidates if self._forbidden.isdisjoint(t)]
                elif any(not self._forbidden.isdisjoint(tokens) for tokens, _ in candidates):
                    again[index] = _Mode(mode.most, True, mode.wide)
                    continue
                if truncated and self._stops_early and not mode.wide:
                    again[index] = _Mode(mode.most, mode.without_special, True)
                    continue
                for tokens, log_probability in candidates:
                    # The score of one is without its end, or is that of other probabilities.
                    if len(tokens) >= mode.most - 1 or mode.without_special:
                        unscored.append((index, tokens))
                    else:
                        result[index].append(self._hypothesis(tokens, log_probability))
            scores = self._score([(sources[index], tokens) for index, tokens in unscored])
            for (index, tokens), log_probability in zip(unscored, scores, strict=True):
                result[index].append(self._hypothesis(tokens, log_probability))
            waiting = again
        for index, hypotheses in enumerate(result):
            finite = [h for h in hypotheses if math.isfinite(h.score) and h.log_probability > _IMPOSSIBLE]
            if not finite:
                raise UserError("the model gives no finite scores: its weights are damaged; train it again")
            result[index] = sorted(finite, key=lambda h: -h.score)[: self.n_best]
        return result

    @property
    def _stops_early(self) -> bool:
        """Whether search may stop with fewer than `beam_size` hypotheses."""
        return self.search.beam_size > 1 and not self.search.length_penalty

    def _hypothesis(self, tokens: tuple[int, ...], log_probability: float) -> Hypothesis:
        alpha, normalization = self.search.length_penalty, self.search.normalization
        penalty = length_penalty(len(tokens) + 1, alpha, normalization)
        return Hypothesis(tokens, log_probability, log_probability / penalty)

    def _search(
        self, sources: Sequence[Ids], waiting: dict[int, _Mode]
    ) -> dict[int, list[tuple[tuple[int, ...], float]]]:
        """Of each sentence the hypotheses of CTranslate2: token ids and log-probability."""
        groups: dict[_Mode, list[int]] = {}
        for index, mode in waiting.items():
            groups.setdefault(mode, []).append(index)
        found: dict[int, list[tuple[tuple[int, ...], float]]] = {}
        begun = []
        # Longest first: if memory runs out it does so at once.
        for mode, indices in sorted(groups.items(), key=lambda item: -item[0].most):
            if mode.most == 1:  # room for the end alone
                found |= {index: [((), 0.0)] for index in indices}
                continue
            begun.append((indices, self._begin([self._pieces(sources[i]) for i in indices], mode)))
        alpha = self.search.length_penalty if self.search.beam_size > 1 else 0.0
        for indices, results in begun:
            for index, waited in zip(indices, results, strict=True):
                done = waited.result()
                found[index] = [
                    (tuple(self._target_id[piece] for piece in pieces), score * (len(pieces) + 1) ** alpha)
                    for pieces, score in zip(done.hypotheses, done.scores, strict=True)
                ]
        return found

    def _begin(self, sources: list[list[str]], mode: _Mode) -> Any:
        """Results to wait for, one a source."""
        beam_size, alpha = self.search.beam_size, self.search.length_penalty
        if beam_size == 1:
            options: dict[str, Any] = dict(num_hypotheses=1, length_penalty=0.0)
        elif self._stops_early and not mode.wide:
            options = dict(num_hypotheses=self.n_best, length_penalty=0.0)
        else:  # without a penalty patience does no more than let so many be asked for
            options = dict(
                num_hypotheses=round(_PATIENCE * beam_size), length_penalty=alpha, patience=_PATIENCE
            )
        if mode.without_special:
            options["disable_unk"] = UNK in self._forbidden
            options["suppress_sequences"] = [[self._target[PAD]], [self._target[BOS]]]
        return self._translator.translate_batch(
            sources,
            beam_size=beam_size,
            max_decoding_length=mode.most - 1,  # a token that is not the end comes last
            min_decoding_length=0,
            max_input_length=0,
            max_batch_size=max(self.search.tokens_together, len(sources[0]) + 1),
            batch_type="tokens",
            return_scores=True,
            asynchronous=True,
            **options,
        )

    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """The log-probability of each target with its end, by force-decoding."""
        if not pairs:
            return []
        longest = max(max(len(source), len(target)) + 1 for source, target in pairs)
        scored = self._translator.score_batch(
            [self._pieces(source) for source, _ in pairs],
            [[self._target[i] for i in target] for _, target in pairs],
            max_batch_size=max(self.search.tokens_together, longest),
            batch_type="tokens",
            max_input_length=0,
        )
        return [math.fsum(result.log_probs) for result in scored]

    def _pieces(self, ids: Ids) -> list[str]:
        return [self._source[i] for i in ids]


def load_engine(
    path: Path,
    search: SearchConfig | None = None,
    *,
    n_best: int = 1,
    quantization: str | None = None,
    threads: int = 0,
    device: str = "cpu",
) -> tuple[LoadedModel, Engine]:
    """An exported folder, or a model or run folder, which is converted on the way.

    Args:
        search: without it that of the configuration.
        quantization: of the conversion, float32 without it; of an export it must be what it has.

    Returns:
        The tokenizers, configuration and manifest, whose `model` is None where the folder is an export; and
        the engine.

    Raises:
        UserError: it is no model, or CTranslate2 cannot run it.
    """
    folder = find_model(path)
    export = read_manifest(folder).get("export")
    if export is None:
        loaded = load_model(folder)
        with tempfile.TemporaryDirectory(prefix="nmt-") as name:
            write_export(loaded, Path(name), quantization or "float32")
            return loaded, Engine(Path(name), search, n_best=n_best, threads=threads, device=device)
    if quantization is not None and quantization != export["quantization"]:
        raise UserError(
            f"was exported with quantization {export['quantization']}, not {quantization}; export it again",
            file=folder,
        )
    return load_export(folder), Engine(folder, search, n_best=n_best, threads=threads, device=device)


def load_export(folder: Path) -> LoadedModel:
    """What an exported folder says of its model, without the model; UserError where a file was changed."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    no_model: Any = None  # so that nobody else has to ask whether there is one
    return LoadedModel(folder, no_model, load_config(folder / CONFIG), *load_tokenizers(folder), manifest)


def is_export(path: Path) -> bool:
    """Whether this is a folder that `nmt export` wrote."""
    return (path / MANIFEST).is_file() and isinstance(read_manifest(path).get("export"), dict)


def supported_search(search: SearchConfig) -> SearchConfig:
    """With the keys that `Engine` knows; all others at their defaults."""
    return SearchConfig(**search.model_dump(include=set(_SEARCH_KEYS)))


def _check_search(search: SearchConfig) -> None:
    wanted, possible = search.model_dump(), supported_search(search).model_dump()
    changed = [f"search.{key} = {value}" for key, value in wanted.items() if value != possible[key]]
    if changed:
        raise UserError(
            f"CTranslate2 has no {' and no '.join(changed)}; leave it out, or translate with nmt's own engine"
        )
