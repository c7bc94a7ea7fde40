"""Several models that translate together: any architectures, any source vocabularies, one target vocabulary.

N rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nmt.checkpoint import LoadedModel
from nmt.errors import UserError

Ids = Sequence[int]
# From token ids of the first model's source vocabulary to those of a model's own.
Reader = Callable[[Ids], Ids]


def readers(models: Sequence[LoadedModel]) -> list[Reader]:
    """How each model reads what the first has read.

    Raises:
        UserError: a model has another target vocabulary than the first.
    """
    first = models[0]
    for other in models[1:]:
        if other.target_tokenizer.model != first.target_tokenizer.model:
            raise UserError(
                f"has another target vocabulary than {first.folder}; an ensemble needs models that write the "
                "same tokens: train them with one tokenizer",
                file=other.folder,
            )
    return [_reader(first, model) for model in models]


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
