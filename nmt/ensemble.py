"""How models read a source, and several that translate together: any architectures, any source vocabularies,
one target vocabulary.

N rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nmt.checkpoint import LoadedModel
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError

Ids = Sequence[int]
# From token ids of the first model's source vocabulary to those of a model's own.
Reader = Callable[[Ids], Ids]


def readers(models: Sequence[LoadedModel], tag: str = "") -> list[Reader]:
    """How each model reads what the first has read, with a tag before it if one is given.

    Raises:
        UserError: a model has another target vocabulary than the first, or does not know the tag.
    """
    first = models[0]
    for other in models[1:]:
        if other.target_tokenizer.model != first.target_tokenizer.model:
            raise UserError(
                f"has another target vocabulary than {first.folder}; an ensemble needs models that write the "
                "same tokens: train them with one tokenizer",
                file=other.folder,
            )
    return [
        _then(_reader(first, model), tagging(model.source_tokenizer, tag, model.folder)) for model in models
    ]


def tagging(tokenizer: Tokenizer, tag: str, folder: Path | None = None) -> Reader:
    """Puts a tag of training (`data.tags`) before a source, "" being none.

    Raises:
        UserError: the vocabulary does not have it.
    """
    if not tag:
        return lambda ids: ids
    if tag not in tokenizer.tags:
        known = f"use {' or '.join(tokenizer.tags)}" if tokenizer.tags else "it knows none: leave the tag out"
        raise UserError(
            f'search.tag = "{tag}" is not a tag that the model was trained with; {known}', file=folder
        )
    first = tokenizer.id_of(tag)
    return lambda ids: [first, *ids]


def _then(one: Reader, other: Reader) -> Reader:
    return lambda ids: other(one(ids))


def _reader(first: LoadedModel, model: LoadedModel) -> Reader:
    if model.source_tokenizer.model == first.source_tokenizer.model:
        return lambda ids: ids

    def read(ids: Ids) -> Ids:
        # A sentence of bytes that are no text may leave nothing to read.
        return model.source_tokenizer.encode(first.source_tokenizer.decode(ids))

    return read


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
