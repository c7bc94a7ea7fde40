"""What a head of attention does, in numbers: functions of its weights and of the tokens it looks at.

L layers, H heads, Q queries, K keys, O offsets. Each function takes the weights of one sentence (L, H, Q, K)
and returns what is added up over sentences: a sum for each head (L, H) and the number of rows it is of.
`causal` weights are those of a decoder over its own prefix: row i has keys 0 .. i. Rows that have one key
have no choice and are left out everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Relative positions that are looked at: the key's less the query's.
OFFSETS = (-3, -2, -1, 0, 1, 2, 3)
# "at least 90% of the time": Voita et al. 2019, sec. 5.1.
POSITIONAL = 0.9


class Sum(NamedTuple):
    """Over the rows of a sentence."""

    values_LH: Floats
    rows: float
    chance: float = 0.0  # the same sum for weights that are spread evenly


class Offsets(NamedTuple):
    """For each of `OFFSETS`: its weight, how often it has the largest, in how many rows it exists."""

    weight_LHO: Floats
    largest_LHO: Floats
    rows_O: Floats


def keys_of_rows(weights_LHQK: Weights, causal: bool) -> npt.NDArray[np.int64]:
    """How many keys each row may look at: (Q,)."""
    queries, keys = weights_LHQK.shape[-2:]
    return np.arange(1, queries + 1) if causal else np.full(queries, keys)


def allowed(weights_LHQK: Weights, causal: bool) -> Mask:
    """(Q, K); rows without a choice have no key."""
    keys_Q = keys_of_rows(weights_LHQK, causal)
    mask: Mask = np.arange(weights_LHQK.shape[-1]) < keys_Q[:, None]
    mask[keys_Q < 2] = False
    return mask


def entropy(weights_LHQK: Weights, causal: bool = False) -> tuple[Sum, Sum]:
    """-sum_j w_ij ln w_ij in nats (Ghader and Monz 2017), and divided by the ln of the number of keys.

    The second is 0 for a head that looks at one token and 1 for one that looks everywhere alike.
    """
    keys_Q = keys_of_rows(weights_LHQK, causal)
    rows_Q = keys_Q >= 2
    weights = weights_LHQK[:, :, rows_Q].astype(np.float64)
    nats_LHQ = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(axis=-1)
    most_Q, rows = np.log(keys_Q[rows_Q]), float(rows_Q.sum())
    return (
        Sum(nats_LHQ.sum(axis=-1), rows, float(most_Q.sum())),
        Sum((nats_LHQ / most_Q).sum(axis=-1), rows, rows),
    )


def confidence(weights_LHQK: Weights, special_K: Mask, causal: bool = False) -> Sum:
    """max_j w_ij over tokens that are not special (Voita et al. 2019, sec. 4: the end left out)."""
    content_QK = allowed(weights_LHQK, causal) & ~special_K
    rows_Q = content_QK.any(axis=1)
    largest_LHQ = np.where(content_QK, weights_LHQK, 0)[:, :, rows_Q].max(axis=-1, initial=0)
    keys_Q = keys_of_rows(weights_LHQK, causal)[rows_Q]
    return Sum(largest_LHQ.sum(axis=-1, dtype=np.float64), float(rows_Q.sum()), float((1 / keys_Q).sum()))


def offsets(weights_LHQK: Weights, causal: bool = False) -> Offsets:
    """How much, and how often most, a head looks at a fixed distance (Voita et al. 2019, sec. 5.1).

    A head is positional if the largest weight is at one offset in at least `POSITIONAL` of the rows. We
    count the rows that have a token at that offset: the first token has none before it. In attention over
    the source it is the distance along the diagonal.
    """
    may_QK = allowed(weights_LHQK, causal)
    queries, keys = may_QK.shape
    best_LHQ = weights_LHQK.argmax(axis=-1)
    weight, largest, rows = [], [], []
    for offset in OFFSETS:
        at_Q = np.arange(queries) + offset
        inside_Q: Mask = (at_Q >= 0) & (at_Q < keys)
        inside_Q[inside_Q] = may_QK[inside_Q, at_Q[inside_Q]]
        place_Q = np.flatnonzero(inside_Q)
        weight.append(weights_LHQK[:, :, place_Q, at_Q[place_Q]].sum(axis=-1, dtype=np.float64))
        largest.append((best_LHQ[:, :, place_Q] == at_Q[place_Q]).sum(axis=-1).astype(np.float64))
        rows.append(float(len(place_Q)))
    return Offsets(np.stack(weight, axis=-1), np.stack(largest, axis=-1), np.array(rows))


def rare(weights_LHQK: Weights, count_K: Sequence[float], special_K: Mask, causal: bool = False) -> Sum:
    """How often a head looks most at the least frequent token it may look at (Voita et al. 2019, sec. 5.3).

    Of tokens that are equally rare each counts; rows whose tokens are all alike are left out.

    Args:
        count_K: how often each key's token comes in the text; special tokens are never rare.
    """
    content_QK = allowed(weights_LHQK, causal) & ~special_K
    counts_QK = np.where(content_QK, np.asarray(count_K, dtype=np.float64), np.nan)
    rows_Q = np.asarray(content_QK.any(axis=1))
    rows_Q[rows_Q] = np.nanmin(counts_QK[rows_Q], axis=1) < np.nanmax(counts_QK[rows_Q], axis=1)
    if not rows_Q.any():
        return Sum(np.zeros(weights_LHQK.shape[:2]), 0.0)
    rarest_RK = counts_QK[rows_Q] == np.nanmin(counts_QK[rows_Q], axis=1, keepdims=True)
    best_LHR = weights_LHQK[:, :, rows_Q].argmax(axis=-1)
    hit_LHR = rarest_RK[np.arange(len(rarest_RK)), best_LHR]
    keys_R = keys_of_rows(weights_LHQK, causal)[rows_Q]
    return Sum(
        hit_LHR.sum(axis=-1).astype(np.float64),
        float(len(keys_R)),
        float((rarest_RK.sum(axis=1) / keys_R).sum()),
    )


def weight_on(weights_LHQK: Weights, wanted_QK: Mask, causal: bool = False) -> Sum:
    """sum_j w_ij over the keys that are wanted, of the rows that have one."""
    wanted_QK = wanted_QK & allowed(weights_LHQK, causal)
    rows_Q = wanted_QK.any(axis=1)
    found = (weights_LHQK[:, :, rows_Q] * wanted_QK[rows_Q]).sum(axis=(-1, -2), dtype=np.float64)
    keys_Q = keys_of_rows(weights_LHQK, causal)[rows_Q]
    return Sum(found, float(rows_Q.sum()), float((wanted_QK[rows_Q].sum(axis=1) / keys_Q).sum()))


def copies(target_words: Sequence[str], source_words: Sequence[str]) -> Mask:
    """For `weight_on`, by token: the source tokens of the word that is being written.

    Marks at a word's ends do not count; a word without a letter or digit is no copy.

    Args:
        target_words, source_words: the word that each token belongs to.
    """
    targets, sources = (np.array([_bare(w) for w in words]) for words in (target_words, source_words))
    same: Mask = (targets[:, None] == sources) & (targets != "")[:, None]
    return same


def followers(ids_K: Sequence[int], special_K: Mask) -> Mask:
    """For `weight_on`, in self-attention: what followed the first time, where a pattern comes again.

    Of A B ... A B the row of the second A wants the first B: an induction head looks there to know what
    comes next (Olsson et al. 2022, "In-context learning and induction heads", where it is called prefix
    matching and measured on random tokens that are repeated). Of several earlier A B each counts. A row
    whose next token did not follow before is left out, since looking there would be of no use: with such
    rows a head that was never needed ranked beside the one that learnt a planted pattern (LOG.md).
    """
    ids = np.asarray(ids_K)
    same_QK = (ids[:, None] == ids) & ~special_K[:, None]
    wanted = np.zeros(same_QK.shape, dtype=bool)
    # (i, j + 1) where tokens i and j are the same, and those after them.
    wanted[:-1, 1:] = same_QK[:-1, :-1] & (ids[1:, None] == ids[1:])
    return np.tril(wanted, k=-1)


def _bare(word: str) -> str:
    places = [i for i, character in enumerate(word) if character.isalnum()]
    return word[places[0] : places[-1] + 1] if places else ""
