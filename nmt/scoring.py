"""What a model thinks of given translations: their log-probabilities, as search reports them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nmt.checkpoint import LoadedModel
from nmt.config import SearchConfig
from nmt.coverage import coverage_penalty
from nmt.data.tokenizer import EOS
from nmt.errors import UserError
from nmt.forced import Ids, LogProbabilities, attention, log_probabilities
from nmt.hypotheses import Chosen
from nmt.search import length_penalty
from nmt.translator import Translator

Pair = tuple[Ids, Ids]


@dataclass(frozen=True)
class Scored:
    """A translation and its log-probability, in nats. Of a line in parts, sums over the parts."""

    tokens: tuple[str, ...]  # with the end of sentence, or of each part
    token_log_probabilities: tuple[float, ...] | None  # of each of `tokens`; None: it cannot be scored
    log_probability: float | None  # their sum
    score: float | None  # with the length and coverage penalties: by which search ranks
    problem: str | None = None  # why it has no score, or how its score is to be read


class Scorer:
    """A model, or several, and the search whose limits and length penalty count."""

    def __init__(
        self, loaded: LoadedModel, search: SearchConfig | None = None, *, ensemble: Sequence[LoadedModel] = ()
    ):
        """UserError where an ensemble's models do not go together."""
        self.models = [loaded, *ensemble]
        self.search = search or loaded.config.search
        translator = Translator.of(loaded, self.search, ensemble=ensemble)
        self.source_tokenizer, self.target_tokenizer = loaded.source_tokenizer, loaded.target_tokenizer
        self._readers = translator.readers
        # Ends of sentence not counted. What the models have positions for:
        sources = [m.most_source_tokens - 1 for m in translator.models if m.most_source_tokens is not None]
        self._positions = (
            min(sources, default=None),
            None if translator.most_target_tokens is None else translator.most_target_tokens - 1,
        )
        # What a line may have that is translated in one part:
        self.most_source_tokens = translator.most_source_tokens
        self.most_target_tokens = translator.longest(translator.most_source_tokens) - 1

    def score_texts(self, sources: Sequence[str], targets: Sequence[str]) -> list[Scored]:
        """Score one translation a line, in the tokens that the tokenizer makes of it.

        Neither side may be longer than what the translator reads and writes in one part, since how the
        parts of a longer line lie in its translation is not known.
        """
        encoded = self.target_tokenizer.encode_all(targets)
        chosen = [[Chosen(ids if line.strip() else ())] for line, ids in zip(targets, encoded, strict=True)]
        return [scored for (scored,) in self._score(sources, chosen, self.most_target_tokens)]

    def score_chosen(self, sources: Sequence[str], chosen: Sequence[Sequence[Chosen]]) -> list[list[Scored]]:
        """Score any number of translations a line, in the tokens that search chose.

        A source that is too long for one part must come with its parts.
        """
        return self._score(sources, chosen, None)

    def _score(
        self, sources: Sequence[str], chosen: Sequence[Sequence[Chosen]], most_target: int | None
    ) -> list[list[Scored]]:
        encoded = self.source_tokenizer.encode_all(sources)
        # A blank line is to the translator as an empty one.
        ids = [ids if line.strip() else [] for line, ids in zip(sources, encoded, strict=True)]
        pairs: list[Pair] = []
        texts: list[str | None] = []  # of those that are whole lines
        plans: list[list[tuple[Chosen, range, str | None]]] = []
        for line, source, translations in zip(sources, ids, chosen, strict=True):
            plan = []
            for translation in translations:
                begin = len(pairs)
                parts = split(source, translation)
                text = line if len(parts) == 1 and source else None
                problem = self._misfit(source, translation, most_target) or self._beyond_positions(
                    parts, text
                )
                if problem is None and (source or translation.ids):
                    pairs += parts
                    texts += [text] * len(parts)
                plan.append((translation, range(begin, len(pairs)), problem))
            plans.append(plan)
        found = log_probabilities(
            self.models,
            [source for source, _ in pairs],
            [target for _, target in pairs],
            batch_tokens=self.search.tokens_together,
            by=self.search.ensemble_by,
            tag=self.search.tag,
            lines=texts,
        )
        coverage = self._coverage(pairs)
        return [
            [
                self._join(
                    source,
                    translation,
                    [(pairs[i][1], found[i]) for i in span],
                    problem,
                    sum(coverage[i] for i in span),
                )
                for translation, span, problem in plan
            ]
            for source, plan in zip(ids, plans, strict=True)
        ]

    def _coverage(self, pairs: Sequence[Pair]) -> list[float]:
        """What the coverage penalty adds to the score of each pair."""
        beta = self.search.coverage_penalty
        if not beta or not pairs:
            return [0.0] * len(pairs)
        attended: list[Any] = [0.0] * len(pairs)
        for loaded in self.models:
            sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
            for index, weights_LHTS in attention(loaded, sources, targets, tag=self.search.tag):
                mean_TS = weights_LHTS.astype(np.float64).mean(axis=(0, 1))
                attended[index] = attended[index] + mean_TS.sum(axis=0) / len(self.models)
        penalties = []
        for attended_S in attended:
            sum_11S = torch.from_numpy(attended_S)[None, None]
            everywhere_1S = torch.ones(1, len(attended_S), dtype=torch.bool)
            penalties.append(beta * coverage_penalty(sum_11S, everywhere_1S).item())
        return penalties

    def _join(
        self,
        source: Ids,
        translation: Chosen,
        parts: Sequence[tuple[Ids, LogProbabilities]],
        problem: str | None,
        coverage: float,
    ) -> Scored:
        if problem is not None:
            return Scored(tuple(self.target_tokenizer.pieces(translation.ids)), None, None, None, problem)
        if not all(values.size and math.isfinite(values.sum()) for _, values in parts):
            raise UserError("the model gives no finite scores: its weights are damaged; train it again")
        sums = [math.fsum(values.tolist()) for _, values in parts]
        lengths = [len(values) for _, values in parts]
        return Scored(
            tuple(piece for ids, _ in parts for piece in self.target_tokenizer.pieces([*ids, EOS])),
            tuple(value for _, values in parts for value in values.tolist()),
            sum(sums, 0.0),
            sum(
                (
                    total / length_penalty(length, self.search.length_penalty, self.search.normalization)
                    for total, length in zip(sums, lengths, strict=True)
                ),
                coverage,
            ),
            "the source is blank; scored as a translation of the empty sentence"
            if translation.ids and not source
            else None,
        )

    def _misfit(self, source: Ids, translation: Chosen, most_target: int | None) -> str | None:
        counted = sum(count for count, _ in translation.parts)
        if translation.parts and counted != len(source):
            return (
                f"the parts of its translation have {counted} source tokens and this source has "
                f"{len(source)}; not scored"
            )
        if not translation.parts and len(source) > self.most_source_tokens:
            return (
                f"the source is longer than {self.most_source_tokens} tokens, and how its translation falls "
                "into parts is not known; not scored"
            )
        if most_target is not None and len(translation.ids) > most_target:
            return f"the translation is longer than {most_target} tokens; not scored"
        return None

    def _beyond_positions(self, parts: Sequence[Pair], text: str | None) -> str | None:
        for side, most, lengths in zip(
            ("source", "translation"),
            self._positions,
            ([len(source) for source, _ in parts], [len(target) for _, target in parts]),
            strict=True,
        ):
            if most is not None and max(lengths) > most:
                return f"the {side} is longer than the {most} tokens the model has positions for; not scored"
        if not all(reader.fits(source, text) for source, _ in parts for reader in self._readers):
            return "the source is longer than a model of the ensemble has positions for; not scored"
        return None


def split(source: Ids, translation: Chosen) -> list[Pair]:
    """A source and its translation as the pairs that were translated at once."""
    pairs = []
    s = t = 0
    for source_count, target_count in translation.parts or [(len(source), len(translation.ids))]:
        pairs.append((source[s : s + source_count], translation.ids[t : t + target_count]))
        s, t = s + source_count, t + target_count
    return pairs
