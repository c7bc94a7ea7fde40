"""Translations of lines: hypotheses of their parts joined, and ranked by Bayes risk where that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nmt.bayes_risk import expected_utilities
from nmt.data.scripts import joined
from nmt.data.tokenizer import Tokenizer
from nmt.search import Hypothesis


@dataclass(frozen=True)
class Candidate:
    """One translation of a line. Scores of a line that was split are the sums over its parts."""

    text: str
    score: float
    log_probability: float
    tokens: tuple[str, ...]
    lengths: tuple[tuple[int, int], ...] = ()  # source and target tokens of each part
    utility: float | None = None  # expected, 0 to 100, where minimum Bayes risk decided


@dataclass(frozen=True)
class Translation:
    """The translations of one line, best first, or samples as drawn; a blank line has one, empty."""

    candidates: tuple[Candidate, ...]
    parts: int = 1  # more where the line was longer than the model can take

    @property
    def text(self) -> str:
        return self.candidates[0].text


@dataclass(frozen=True)
class Part:
    """What is translated at once: a line, or tokens `first` and following of a line that is too long."""

    line: str
    line_ids: Sequence[int]
    first: int
    ids: Sequence[int]


@dataclass(frozen=True)
class Joining:
    """From the hypotheses of a line's parts to its translation.

    Args:
        utility: "chrf" or "bleu": the candidates are samples, and the `n_best` with the least Bayes risk are
            wanted; None: the order of the hypotheses is that of the candidates.
    """

    tokenizer: Tokenizer
    utility: str | None
    n_best: int

    def join(
        self,
        sources: Sequence[Part],
        parts: Sequence[Sequence[Hypothesis]],
        texts: Sequence[Sequence[str]],
    ) -> Translation:
        """The line's translation from the hypotheses of its parts; the n-th best joins the n-th bests."""
        if not parts:
            return self._ranked(Translation((Candidate("", 0.0, 0.0, ()),)))
        candidates = []
        for rank in range(max(map(len, parts))):
            ranks = [min(rank, len(part) - 1) for part in parts]
            chosen = [part[place] for part, place in zip(parts, ranks, strict=True)]
            candidates.append(
                Candidate(
                    _one_line(joined(text[place] for text, place in zip(texts, ranks, strict=True))),
                    sum(hypothesis.score for hypothesis in chosen),
                    sum(hypothesis.log_probability for hypothesis in chosen),
                    tuple(p for h in chosen for p in self.tokenizer.pieces(h.tokens)),
                    tuple((len(s.ids), len(h.tokens)) for s, h in zip(sources, chosen, strict=True)),
                )
            )
        return self._ranked(Translation(tuple(candidates), len(parts)))

    def _ranked(self, translation: Translation) -> Translation:
        """With the n best by expected utility, if that decides; each text once, as its likeliest sample."""
        if self.utility is None:
            return translation
        utilities = expected_utilities([c.text for c in translation.candidates], self.utility)
        likeliest: dict[str, Candidate] = {}
        for candidate, expected in zip(translation.candidates, utilities, strict=True):
            other = likeliest.get(candidate.text)
            if other is None or candidate.log_probability > other.log_probability:
                likeliest[candidate.text] = replace(candidate, utility=expected)
        best = sorted(likeliest.values(), key=lambda c: (-(c.utility or 0.0), -c.log_probability))
        return replace(translation, candidates=tuple(best[: self.n_best]))


def _one_line(text: str) -> str:
    """Text that a byte token could have broken into lines, as one."""
    return text.replace("\r", " ").replace("\n", " ")
