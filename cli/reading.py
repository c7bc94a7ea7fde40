"""How word links are read off attention: options that `nmt align` and `nmt evaluate` share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.cli import output as out
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.alignment import Aligner, View
    from nmt.checkpoint import LoadedModel
    from nmt.gold import Gold
    from nmt.text_alignment import Alignment, Seen


@dataclass(frozen=True)
class Reading:
    """How links are read off attention, and what they are compared to.

    Raises:
        UserError: the options are wrong.
    """

    words: str
    gold: Path | None
    gold_base: int
    layer: str | None  # "1", "mean", "best"
    head: str | None  # "1", "mean"; without both what the model was trained for, else the mean
    shift: bool | None = None  # None is no, and to be found out where the best is looked for
    two_directions: bool = False  # without a gold alignment the best is where they agree most
    prefix: str = "--"  # of the options' names

    def __post_init__(self) -> None:
        if self.words not in ("blank", "punctuation"):
            raise UserError(f"--words {self.words} is not known; use blank or punctuation")
        layer, head = f"{self.prefix}layer {self.layer}", f"{self.prefix}head {self.head}"
        if not _is_number(self.layer, "mean", "best"):
            raise UserError(f"{layer} is not a number from 1, nor mean, nor best")
        if not _is_number(self.head, "mean"):
            raise UserError(f"{head} is not a number from 1, nor mean")
        if self.layer in (None, "mean") and self.head not in (None, "mean"):
            raise UserError(f"{head} needs {self.prefix}layer: heads of different layers are strangers")
        if self.best and self.head is not None:
            raise UserError("the best view is chosen among all heads; leave out --head")
        if self.best and self.gold is None and not self.two_directions:
            either = ", or --reverse MODEL" if self.prefix == "--" else ""
            raise UserError(f"{layer} needs a gold alignment to choose by; add one{either}")

    @property
    def best(self) -> bool:
        return self.layer == "best"

    def gold_of(self, sources: Sequence[str], targets: Sequence[str]) -> list[Gold] | None:
        from nmt.gold import read_gold

        if self.gold is None:
            return None
        pairs = list(zip(sources, targets, strict=True))
        return read_gold(self.gold, pairs, words=self.words, base=self.gold_base)

    def views(self, aligner: Aligner) -> list[View]:
        """Those to choose among; one where none is to be chosen."""
        from nmt.alignment import View, default_view

        if self.best:
            return aligner.views((False, True) if self.shift is None else (self.shift,))
        if self.layer is None and self.head is None:
            return [replace(default_view(aligner.loaded), shift=bool(self.shift))]
        layer, head = (None if text in (None, "mean") else int(text) for text in (self.layer, self.head))
        return [View(layer, head, bool(self.shift))]

    def look(self, loaded: LoadedModel, sources: Sequence[str], targets: Sequence[str]) -> Seen:
        from nmt.alignment import Aligner
        from nmt.text_alignment import look

        aligner = Aligner(loaded, self.words)
        pairs = list(zip(sources, targets, strict=True))
        total = len(pairs)
        found = look(aligner, pairs, self.views(aligner), lambda n: out.status(f"{n:,} of {total:,} lines"))
        out.status("")
        return found

    def align(
        self, loaded: LoadedModel, sources: Sequence[str], targets: Sequence[str], gold: list[Gold] | None
    ) -> Alignment:
        from nmt.text_alignment import choose

        return choose(self.look(loaded, sources, targets), gold)


def _is_number(text: str | None, *others: str) -> bool:
    return text is None or text in others or re.fullmatch(r"[1-9]\d{0,3}", text, re.ASCII) is not None
