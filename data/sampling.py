"""Subword sampling on the fly: prepared sentences segmented anew (Kudo 2018; Provilkov et al. 2020).

Segmentations are made of token ids, which give the text: decoding is exact. They are a function of the seed,
the side and a name for the part of the data, wherever and in whatever order they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from nmt.data.batches import seeded
from nmt.data.prepared import check_ids, load_tokenizers
from nmt.data.tokenizer import Tokenizer
from nmt.data.tokens import Tokens

Side = Literal["source", "target"]


@dataclass(frozen=True)
class Part:
    """Sentences to be segmented."""

    side: Side
    rows: npt.NDArray[np.int64]
    purpose: tuple[int, ...]  # what tells this part from others: the epoch, ...


class Segmenter:
    """The task of a worker: new segmentations of the sentences of a part."""

    def __init__(
        self,
        folder: Path,
        dtype: str,
        rate: float,
        seed: int,
        *,
        max_tokens: int,
        tags: frozenset[int] = frozenset(),
    ):
        """
        Args:
            folder: the prepared corpus, whose ids have the type `dtype`.
            rate: of BPE-dropout, or unigram's alpha.
            max_tokens: a longer segmentation, which the model may have no positions for, is not taken:
                that sentence keeps its own.
            tags: ids that may begin a source sentence and are not text; they stay.
        """
        self._folder = folder
        self._dtype = dtype
        self._rate = rate
        self._seed = seed
        self._max_tokens = max_tokens
        self._tags = tags

    @cached_property
    def _sides(self) -> dict[Side, tuple[Tokens, Tokenizer]]:
        source, target = load_tokenizers(self._folder)
        return {
            "source": (Tokens.mapped(self._folder / "train.source", self._dtype), source),
            "target": (Tokens.mapped(self._folder / "train.target", self._dtype), target),
        }

    def __call__(self, part: Part) -> Tokens:
        tokens, tokenizer = self._sides[part.side]
        copied = tokens.copied(part.rows)
        check_ids(self._folder, part.side, copied.ids, tokenizer)
        own = [copied[i].tolist() for i in range(len(copied))]
        tagged = [len(ids) > 0 and ids[0] in self._tags and part.side == "source" for ids in own]
        lines = [tokenizer.decode(ids) for ids in own]  # which leaves tags out
        seed = int(seeded(self._seed, "sampling", part.side, *part.purpose).integers(2**32))
        sampled = tokenizer.sample_all(lines, self._rate, seed)
        chosen = []
        for old, new, has_tag in zip(own, sampled, tagged, strict=True):
            new = [old[0], *new] if has_tag else new
            chosen.append(new if len(new) <= self._max_tokens else old)
        found = Tokens.of(chosen)
        return Tokens(found.ids.astype(self._dtype), found.offsets)
