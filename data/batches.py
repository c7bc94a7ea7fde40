"""Batches under a token budget: a pure function of (lengths, seed, epoch, window).

Resuming therefore means knowing three integers: the epoch, the window and the batch in it (`nmt.stream`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int64]


def seeded(seed: int, *purpose: int | str) -> np.random.Generator:
    """A generator for one purpose: every random choice derives from (seed, purpose, epoch, ...)."""
    words = [seed]
    for part in purpose:
        words += part.to_bytes(8, "little") if isinstance(part, int) else part.encode()
    return np.random.default_rng(words)


def plan_epoch(
    source_lengths: Lengths,
    target_lengths: Lengths,
    *,
    batch_tokens: int,
    seed: int,
    epoch: int,
    window: int = 0,
) -> list[Lengths]:
    """Which sentences form each batch of an epoch, or of a window of it.

    Sentences of equal length are shuffled, neighbours in length are cut into batches, and the
    batches are shuffled. Several processes share them out (`nmt.ranks`).

    Args:
        source_lengths, target_lengths: tokens of each sentence as the model reads them.
        window: of the epoch, where these are not all its sentences.
        batch_tokens: a batch holds as many sentences as fit with sentences x longest side <= this;
            padding counts. A single longer sentence is a batch of its own.

    Returns:
        A list of arrays of sentence indices; together a permutation.
    """
    random = seeded(seed, "batches", epoch, *([window] if window else []))
    # Keys of lexsort run from the last to the first: target, then source, then chance.
    order = np.lexsort((random.permutation(len(source_lengths)), source_lengths, target_lengths))
    longest = np.maximum(source_lengths, target_lengths)[order]
    batches = [order[start:end] for start, end in cut(longest, batch_tokens)]
    return [batches[i] for i in random.permutation(len(batches))]


def cut(lengths: npt.NDArray[Any], batch_tokens: int) -> list[tuple[int, int]]:
    """Cut a sequence of lengths into runs with count x longest <= batch_tokens, at least one each."""
    runs = []
    start, longest = 0, 0
    for index, length in enumerate(lengths.tolist()):
        longest_with = max(longest, length)
        if index > start and (index - start + 1) * longest_with > batch_tokens:
            runs.append((start, index))
            start, longest_with = index, length
        longest = longest_with
    if len(lengths):
        runs.append((start, len(lengths)))
    return runs


@dataclass(frozen=True)
class Batch:
    """Token ids, padded on the right.

    source_BS ends in end-of-sentence; target_input_BT begins with beginning-of-sentence and
    target_output_BT, one position ahead, ends in end-of-sentence.
    """

    source_BS: npt.NDArray[np.int64]
    target_input_BT: npt.NDArray[np.int64]
    target_output_BT: npt.NDArray[np.int64]
    links_N3: npt.NDArray[np.int64] | None = None  # sentence, source token, target token of each known link


def pad(sequences: Sequence[npt.ArrayLike], padding: int) -> npt.NDArray[np.int64]:
    """Sequences of ids as one array (B, longest)."""
    arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    lengths = np.array([len(array) for array in arrays])
    return pad_flat(np.concatenate(arrays), lengths, padding)


def pad_flat(ids: npt.NDArray[Any], lengths: Lengths, padding: int, room: int = 0) -> npt.NDArray[np.int64]:
    """Sequences that stand in one array, one after another, as an array (B, longest + `room`)."""
    padded = np.full((len(lengths), int(lengths.max()) + room), padding, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = ids
    return padded
