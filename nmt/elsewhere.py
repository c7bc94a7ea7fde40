"""Search by another engine in our place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nmt.search import Hypothesis


class SearchEngine(Protocol):
    """Such as `nmt.ctranslate2_engine.Engine`; limits as those of `nmt.translator.Translator`."""

    most_source_tokens: int
    most_target_tokens: int | None

    def translate_ids(self, sources: Sequence[Sequence[int]]) -> list[list[Hypothesis]]: ...


@dataclass(frozen=True)
class Elsewhere:
    """A search by an engine, as `nmt.budget.Searching` is one by us."""

    engine: SearchEngine
    sources: Sequence[Sequence[int]]

    def results(self, look: Callable[[], None]) -> list[list[Hypothesis]]:
        return self.engine.translate_ids(self.sources)

    def close(self) -> None:
        """Nothing has begun."""
