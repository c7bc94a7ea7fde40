"""How models read a source, and several that translate together: any architectures, any source vocabularies,
one target vocabulary.

N rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nmt.checkpoint import LoadedModel
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError

Ids = Sequence[int]


@dataclass(frozen=True)
class Reader:
    """From token ids of the first model's source vocabulary to those that a model reads.

    Args:
        tag: comes before them.
        first, own: the first model's source tokenizer and this one's, where they differ.
        most: how many it has positions for then, the tag and the end not counted; None: any.
    """

    tag: tuple[int, ...] = ()
    first: Tokenizer | None = None
    own: Tokenizer | None = None
    most: int | None = None

    def __call__(self, ids: Ids, line: str | None = None) -> list[int]:
        """`line`: the text, where the ids are all of it: they may leave out what it says, as <unk> does."""
        read = self._read(ids, line)
        if self._beyond(read):
            read = self._read(ids, None)
        return [*self.tag, *read[: self.most]]

    def fits(self, ids: Ids, line: str | None = None) -> bool:
        """Whether all is read, or no shorter part could be: what else there is of a single token is left."""
        return self.own is None or len(ids) < 2 or not self._beyond(self._read(ids, line))

    def _read(self, ids: Ids, line: str | None) -> Ids:
        if self.first is None or self.own is None:
            return ids
        # A sentence of bytes that are no text may leave nothing to read.
        return self.own.encode(self.first.decode(ids) if line is None else line)

    def _beyond(self, read: Ids) -> bool:
        return self.most is not None and len(read) > self.most


def readers(models: Sequence[LoadedModel], tag: str = "", *, one_source: bool = False) -> list[Reader]:
    """How each model reads what the first has read, with a tag before it if one is given.

    Args:
        one_source: they must have one source vocabulary, as `search.coverage_penalty` needs.

    Raises:
        UserError: a model has another target vocabulary than the first, does not know the tag, or has
            another source vocabulary against `one_source`.
    """
    first = models[0]
    for other in models[1:]:
        if other.target_tokenizer.model != first.target_tokenizer.model:
            raise UserError(
                f"has another target vocabulary than {first.folder}; an ensemble needs models that write the "
                "same tokens: train them with one tokenizer",
                file=other.folder,
            )
        if one_source and other.source_tokenizer.model != first.source_tokenizer.model:
            raise UserError(
                f"has another source vocabulary than {first.folder}, and search.coverage_penalty counts "
                "attention to the same tokens; set it to 0",
                file=other.folder,
            )
    found = []
    for model in models:
        reader = tagging(model.source_tokenizer, tag, model.folder)
        if model.source_tokenizer.model != first.source_tokenizer.model:
            positions = model.model.most_source_tokens
            most = None if positions is None else positions - 1 - len(reader.tag)
            reader = replace(reader, first=first.source_tokenizer, own=model.source_tokenizer, most=most)
        found.append(reader)
    return found


def tagging(tokenizer: Tokenizer, tag: str, folder: Path | None = None) -> Reader:
    """Puts a tag of training (`data.tags`) before a source, "" being none.

    Raises:
        UserError: the vocabulary does not have it.
    """
    if not tag:
        return Reader()
    if tag not in tokenizer.tags:
        known = f"use {' or '.join(tokenizer.tags)}" if tokenizer.tags else "it knows none: leave the tag out"
        raise UserError(
            f'search.tag = "{tag}" is not a tag that the model was trained with; {known}', file=folder
        )
    return Reader((tokenizer.id_of(tag),))


def mean_log_probability(log_probs: Sequence[Tensor], by: str) -> Tensor:
    """Of several models' log-probabilities, all of one shape.

    Args:
        by: "probability", log of the mean probability; "log-probability", mean of the logarithms, which asks
            for the agreement of all, and whose probabilities sum to less than 1.
    """
    stacked = torch.stack(list(log_probs))
    if by == "log-probability":
        return stacked.mean(dim=0)
    return stacked.logsumexp(dim=0) - math.log(len(log_probs))
