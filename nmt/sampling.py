"""Translations drawn by chance: ancestral sampling, also from the k most probable tokens (Fan et al. 2018) or
from the nucleus (Holtzman et al. 2020).

A draw depends on the seed, the tokens of the source, the number of the sample and the position, on nothing
else: the same line and seed give the same sample in any batch, and two equal lines get equal samples. What
differs between batches is the rounding of the model's scores. A draw by inversion, one uniform number against
cumulative probabilities, would hand that on: what one score has lost moves the boundaries of all tokens after
it. Here every token has a random number of its own, and the winner changes only where the best two all but
tie, with a probability about as small as the rounding itself.

B sentences, K samples of each at once, N of them that live, n in a piece, V vocabulary, G blocks of tokens.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.search import Device, Hypothesis, Rows, Scores, Sentence, Start, StateT, Step, length_penalty, search
from nmt.top_k import top_k

# Samples of a sentence that are in the batch as one sentence; more of them are further sentences.
PLACES = 8
# Temperatures; beyond them float32 may lose the scores.
COLDEST, HOTTEST = 0.001, 1000.0
# Part of what decides a draw, as the seed is: other values draw other samples.
_BLOCK = 64
# Most nuclei are smaller; larger ones cost a sort.
_NUCLEUS = 64
_GAMMA = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Draws:
    """What to draw.

    Raises:
        ValueError: out of range.
    """

    samples: int = 1
    temperature: float = 1.0  # scores are divided by it: below 1 the probable gets more so
    top_k: int | None = None  # only the k most probable tokens, and what is as probable as the last of them
    # Then only the fewest most probable that together have this probability, and equals of the last.
    top_p: float | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples = {self.samples} is less than 1")
        if not COLDEST <= self.temperature <= HOTTEST:
            raise ValueError(f"temperature = {self.temperature} is not from {COLDEST} to {HOTTEST}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k = {self.top_k} is less than 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p} is not above 0 and up to 1")


class Sampling:
    """Draws the next token of each place by itself. A `nmt.search.Method`.

    A place is done when it draws `end`; at the greatest length it must. What is drawn changes with
    temperature, top-k and top-p; the log-probabilities are those of the model without them.
    A place whose scores leave no token, or are not numbers, dies.
    """

    replayable = False

    def __init__(
        self,
        places: int,
        draws: Draws,
        *,
        seeds: Sequence[int],
        end: int,
        forbidden: Sequence[int] = (),
        device: Device = "cpu",
    ):
        """`seeds`: of each sentence, by index; place k draws with seed + k. `forbidden`: ids never drawn."""
        self.places, self.draws, self.end = places, draws, end
        self.banned = torch.tensor(list(forbidden), dtype=torch.long, device=device)
        self.seeds = torch.tensor([_signed(seed) for seed in seeds], device=device)
        self.place_K = torch.arange(places, device=device)

    def first(self) -> Sequence[bool]:
        return [True] * self.places

    def advance(self, rows: Rows, scores: Scores, live_N: Tensor | None) -> Tensor:
        score_BK = rows.score_BK
        length_BK = (rows.length_B[:, None] + 1).expand_as(score_BK)
        token_BK, log_prob_BK = torch.zeros_like(rows.token_BK), torch.zeros_like(score_BK)
        # Of each hypothesis that lives, in the order of the scores.
        key_N, must_N, may_N = (
            x_BK.flatten() if live_N is None else x_BK.flatten()[live_N]
            for x_BK in (
                self._keys(rows),
                length_BK >= rows.most_B[:, None],
                length_BK >= rows.least_B[:, None],
            )
        )
        tokens, log_probs = [], []
        done = 0
        for scores_nV, total_n1 in scores:
            piece = slice(done, done + len(scores_nV))
            done = piece.stop
            token_n1, score_n1 = self._draw(scores_nV, key_N[piece], must_N[piece], may_N[piece])
            tokens.append(token_n1.squeeze(1))
            log_probs.append((score_n1 - total_n1).squeeze(1).to(score_BK.dtype))
        places_N = slice(None) if live_N is None else live_N
        token_BK.view(-1)[places_N] = torch.cat(tokens)
        log_prob_BK.view(-1)[places_N] = torch.cat(log_probs)

        total_BK = score_BK + log_prob_BK
        lives_BK = (score_BK > -math.inf) & (total_BK > -math.inf)  # what is not a number is not greater
        ends_BK = lives_BK & (token_BK == self.end)
        rows.log_prob_BK = torch.where(ends_BK, total_BK, rows.log_prob_BK)
        rows.finished_BK = rows.log_prob_BK
        rows.tokens_BK = torch.where(ends_BK, length_BK - 1, rows.tokens_BK)
        rows.score_BK = torch.where(lives_BK & ~ends_BK, total_BK, -math.inf)
        source_BK = self.place_K.expand_as(token_BK)
        rows.extend(source_BK, token_BK)
        return source_BK

    def _keys(self, rows: Rows) -> Tensor:
        """What the random numbers of the next token of each place are counted from, (B, K)."""
        seed_B = self.seeds[torch.tensor(rows.sentence_B, device=self.seeds.device)]
        seed_BK = seed_B[:, None] + self.place_K
        return random_bits(random_bits(seed_BK, torch.zeros_like(seed_BK)), rows.length_B[:, None])

    def _draw(self, scores_nV: Tensor, key_n: Tensor, must_n: Tensor, may_n: Tensor) -> tuple[Tensor, Tensor]:
        """A token for each row and its score, (n, 1) each; it ends where it must, and only where it may."""
        end_score_n1 = scores_nV[:, self.end, None].clone()
        scores_nV[:, self.banned] = -math.inf
        scores_nV[:, self.end].masked_fill_(~may_n, -math.inf)
        token_n1 = draw(truncated_weights(scores_nV, self.draws), key_n)
        score_n1 = torch.where(must_n[:, None], end_score_n1, scores_nV.gather(1, token_n1))
        return token_n1.masked_fill(must_n[:, None], self.end), score_n1


def sample(
    step: Step[StateT],
    start: Start[StateT],
    sentences: Sequence[Sentence],
    draws: Draws,
    *,
    begin: int,
    end: int,
    forbidden: Sequence[int] = (),
    alpha: float = 0.0,
    normalization: str = "gnmt",
    room: Sequence[int] | int | None = None,
    device: Device = "cpu",
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """`nmt.search.search` for samples of each sentence, which draws with its `seed`; see `seed_of`.

    The first samples are the same however many are drawn. They come in the order in which they are numbered,
    and `Hypothesis.score` is the log-probability divided by `length_penalty`, as in beam search.
    """
    groups = math.ceil(draws.samples / PLACES)
    places = math.ceil(draws.samples / groups)
    parts = [
        replace(sentence, seed=sentence.seed + group * places)
        for sentence in sentences
        for group in range(groups)
    ]
    if room is not None and not isinstance(room, int):
        room = [count for count in room for _ in range(groups)]
    method = Sampling(
        places,
        draws,
        seeds=[part.seed for part in parts],
        end=end,
        forbidden=forbidden,
        device=device,
    )
    waiting: dict[int, dict[int, list[Hypothesis]]] = {}
    for part, found in search(
        step,
        lambda indices: start([index // groups for index in indices]),
        parts,
        method,
        begin=begin,
        room=room,
        device=device,
    ):
        index, group = divmod(part, groups)
        done = waiting.setdefault(index, {})
        done[group] = found
        if len(done) == groups:
            del waiting[index]
            drawn = [sample for group in range(groups) for sample in done[group]]
            yield (
                index,
                [
                    replace(
                        h, score=h.log_probability / length_penalty(len(h.tokens) + 1, alpha, normalization)
                    )
                    for h in drawn[: draws.samples]
                ],
            )


def seed_of(seed: int, source: Sequence[int]) -> int:
    """The seed of a sentence: of its tokens, not of its place in the text."""
    words = " ".join(map(str, (seed, *source)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")


def truncated_weights(scores_nV: Tensor, draws: Draws) -> Tensor:
    """What tokens are drawn by: multiples of their probabilities, the largest 1; 0: not drawn.

    Temperature, then top-k, then top-p, each of what the one before has left.
    """
    weight_nV = scores_nV - scores_nV.amax(dim=1, keepdim=True)
    if draws.temperature != 1:
        weight_nV /= draws.temperature
    weight_nV.exp_()
    if draws.top_k is not None and draws.top_k < scores_nV.size(1):
        weight_nV *= scores_nV >= _largest(scores_nV, draws.top_k)[:, -1:]
    if draws.top_p is not None and draws.top_p < 1:
        weight_nV *= weight_nV >= _last_of_nucleus(weight_nV, draws)
    return weight_nV


def _last_of_nucleus(weight_nV: Tensor, draws: Draws) -> Tensor:
    """The least weight in each row's nucleus, (n, 1)."""
    size = min(weight_nV.size(1), draws.top_k or weight_nV.size(1))
    enough_n1 = (draws.top_p or 1.0) * weight_nV.sum(dim=1, keepdim=True, dtype=torch.float64)
    if size <= _NUCLEUS or weight_nV.is_cuda:  # a GPU waits where it is asked whether more are needed
        return _last_needed(_largest(weight_nV, size), enough_n1)
    best_nC = _largest(weight_nV, _NUCLEUS)
    last_n1 = _last_needed(best_nC, enough_n1)
    wide_R = (best_nC.sum(dim=1, dtype=torch.float64) < enough_n1[:, 0]).nonzero()[:, 0]
    if len(wide_R):
        last_n1[wide_R] = _last_needed(_largest(weight_nV[wide_R], size), enough_n1[wide_R])
    return last_n1


def _last_needed(descending_nC: Tensor, enough_n1: Tensor) -> Tensor:
    """The last value of each row before which the others are not enough."""
    before_nC = descending_nC.cumsum(dim=1, dtype=torch.float64) - descending_nC
    count_n1 = (before_nC < enough_n1).sum(dim=1, keepdim=True)
    return descending_nC.gather(1, (count_n1 - 1).clamp_min(0))


def _largest(x_nV: Tensor, count: int) -> Tensor:
    if count <= _NUCLEUS:
        return top_k(x_nV, count)[0]
    if x_nV.is_cuda or count < x_nV.size(1):
        return x_nV.topk(count, dim=1).values
    # numpy sorts numbers twice as fast as torch, which sorts their indices too.
    return torch.from_numpy(np.sort(x_nV.numpy(), axis=1)[:, ::-1].copy())


def draw(weight_nV: Tensor, key_n: Tensor) -> Tensor:
    """A token of each row with a probability in proportion to its weight, (n, 1).

    Every token gets a random number E from the exponential distribution, and the largest weight / E wins. In
    logarithms, where -log E is Gumbel's distribution, it is the Gumbel-max trick (Maddison et al. 2014). So
    that not all of them need numbers, a block of tokens is drawn first, by the sum of its weights, then one
    of its tokens.
    """
    count, size = weight_nV.shape
    if size % _BLOCK:
        weight_nV = F.pad(weight_nV, (0, -size % _BLOCK))
    weight_nGv = weight_nV.view(count, -(-size // _BLOCK), _BLOCK)
    block_G = torch.arange(weight_nGv.size(1), device=weight_nV.device)
    sum_nG = weight_nGv.sum(dim=2).double()
    block_n1 = (sum_nG / exponential(key_n[:, None], block_G)).argmax(dim=1, keepdim=True)
    inside_nv = weight_nGv.gather(1, block_n1[:, :, None].expand(-1, -1, _BLOCK)).squeeze(1).double()
    token_nv = block_n1 * _BLOCK + torch.arange(_BLOCK, device=weight_nV.device)
    best_n1 = (inside_nv / exponential(key_n[:, None], -1 - token_nv)).argmax(dim=1, keepdim=True)
    # Padding has no weight and wins only where nothing has any.
    return token_nv.gather(1, best_n1).clamp_max(size - 1)


def exponential(key: Tensor, number: Tensor) -> Tensor:
    """A random number each of a key and a number, from the exponential distribution of mean 1."""
    uniform = (_shift(random_bits(key, number), 12).double() + 0.5) * 2.0**-52  # never 0 or 1
    return -uniform.log()


def random_bits(key: Tensor, number: Tensor) -> Tensor:
    """Output `number` (from 0) of SplitMix64 with seed `key` (Steele, Lea and Flood 2014): 64 bits, int64.

    Written out, and in integers, so that it is the same on every machine and in every version of a library.
    """
    x: Tensor = key + (number + 1) * _signed(_GAMMA)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    x ^= _shift(x, 31)
    return x


def _shift(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    shifted: Tensor = (x >> bits) & (2 ** (64 - bits) - 1)
    return shifted


def _signed(number: int) -> int:
    """The int64 that has the lowest 64 bits of a number."""
    return (number + 2**63) % 2**64 - 2**63
