"""BLEU of tokens, as papers computed it, with a signature that says how; beside it sacreBLEU's of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nmt.evaluation import Score, evaluate, unequal_lengths
from nmt.results import Row, add_rows

from . import moses

TOKENISED = "tokenised BLEU"


@dataclass(frozen=True)
class Protocol:
    """What is done to translation and reference before BLEU counts their tokens.

    Attributes:
        language: of both.
        compounds: hyphens inside words are tokens, as Vaswani et al. 2017 and those before them have it.
        lowercase: compare without case.
        given: both are tokens already.
    """

    language: str
    compounds: bool = False
    lowercase: bool = False
    given: bool = False

    @property
    def signature(self) -> str:
        """What is added to sacreBLEU's."""
        steps = "given" if self.given else moses.signature(self.language)
        return f"|text:{steps}{'+ATAT' if self.compounds else ''}"

    def tokens(self, lines: Sequence[str]) -> list[str]:
        """What BLEU counts."""
        found = lines if self.given else moses.tokenise(lines, self.language)
        return [moses.split_compounds(line) if self.compounds else line for line in found]

    def scores(
        self, hypotheses: Sequence[str], references: Sequence[str], plain: Sequence[str] | None = None
    ) -> list[Score]:
        """BLEU of tokens; where tokens are given, also sacreBLEU's scores of text made of them.

        Args:
            plain: the references as text; made of their tokens where it is not given.
        """
        (score,) = evaluate(
            self.tokens(hypotheses),
            [self.tokens(references)],
            metrics=["bleu"],
            tokenize="none",
            lowercase=self.lowercase,
            confidence=True,
        )
        scores = [replace(score, metric=TOKENISED, signature=score.signature + self.signature)]
        if self.given:
            found = list(moses.detokenise(hypotheses, self.language))
            right = list(moses.detokenise(references, self.language)) if plain is None else plain
            made = f"|text:{moses.signature(self.language)}-detokenised"
            made += "|reference:detokenised" if plain is None else ""
            scores += [
                replace(one, signature=one.signature + made)
                for one in evaluate(found, [right], lowercase=self.lowercase, confidence=True)
            ]
        return scores


def add(
    results: Path,
    model: Path,
    protocol: Protocol,
    *,
    system: str,
    test_set: str,
    hypothesis: Path,
    reference: Path,
    plain: Path | None = None,
) -> list[Row]:
    """Score a translation that `model` made, and add the rows to results.json and results.md.

    Args:
        plain: the reference as text, where `protocol` has tokens given.

    Raises:
        UserError: a file cannot be read, or they have not as many lines; the model is none.
    """
    from nmt.checkpoint import load_model
    from nmt.data.corpus import read_lines
    from nmt.device import choose_device
    from nmt.model_evaluation import ModelUnderTest

    hypotheses = list(read_lines(hypothesis))
    others = {path: list(read_lines(path)) for path in (reference, plain) if path is not None}
    for path, lines in others.items():
        if error := unequal_lengths(str(hypothesis), hypotheses, str(path), lines):
            raise error
    tested = ModelUnderTest(load_model(model, choose_device("auto")), {})
    about: dict[str, Any] = tested.about() | {"lines": len(hypotheses)}
    rows = [
        Row(
            system=system,
            test_set=test_set,
            metric=score.metric,
            score=round(score.score, 4),
            confidence_low=_rounded(score.confidence_low),
            confidence_high=_rounded(score.confidence_high),
            signature=score.signature + tested.identity,
            **about,
        )
        for score in protocol.scores(hypotheses, others[reference], None if plain is None else others[plain])
    ]
    add_rows(results, rows)
    return rows


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
