"""Batches in the order of training: a pure function of (data, configuration, position).

An epoch is a few windows, a window a few hundred batches. A window is a share of the epoch's sentences
drawn at random, inside which batches are planned: so neither start nor continuation ever sorts, samples or
reads more than a window, however large the corpus, and continuing means knowing three integers.
A corpus that fits into one window is planned as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nmt.config import Config, DataConfig
from nmt.data.batches import Batch, plan_epoch, seeded
from nmt.data.mixture import Mixture, Rows, least_weight, repetitions
from nmt.data.pool import Pool, cores
from nmt.data.prepared import TrainingData, check_ids
from nmt.data.sampling import Part, Segmenter, Side
from nmt.data.tokens import Tokens, joined
from nmt.errors import UserError
from nmt.examples import Examples

WINDOW = 1 << 18  # most sentence pairs of a window
_MOST_PAIRS = 1 << 31  # of an epoch
PART = 1 << 15  # of a window, sampled by one process at a time
_SIDES: tuple[Side, Side] = ("source", "target")


@dataclass(frozen=True)
class Position:
    """The next batch: its epoch, the window of the epoch and the batch of the window, all from 0."""

    epoch: int = 0
    window: int = 0
    batch: int = 0


class Stream:
    """Batches in the order of training.

    `position` is that of the next batch and may be set, to continue elsewhere. With subword sampling the
    window to come is sampled by other processes meanwhile, which `close` ends.
    """

    def __init__(
        self,
        data: TrainingData,
        config: Config,
        position: Position = Position(),
        *,
        window_size: int = WINDOW,
        part_size: int = PART,
    ):
        """`window_size` and `part_size` shape the batches; they are arguments for tests alone.

        Raises:
            UserError: the weights of the corpora leave no pair, or none of a corpus that has a weight.
        """
        self.position = position
        self._data = data
        self._batch_tokens = config.training.batch_tokens
        self._seed = config.training.seed
        self._part_size = part_size
        often = repetitions(data.sizes, config.data.weights, config.data.temperature)
        self._mixture = Mixture(data.sizes, often, self._seed)
        if not self._mixture.pairs:
            raise UserError(
                "data.weights leave no pair of "
                f"{sum(data.sizes):,} to be seen in an epoch; raise the weight of a corpus that has pairs"
            )
        if self._mixture.pairs > _MOST_PAIRS:
            raise UserError(
                f"data.weights make an epoch of {self._mixture.pairs:.3g} pairs, more than memory has "
                f"room for; lower them until it has {_MOST_PAIRS:,} at most"
            )
        _require_seen(config.data, data.sizes, self._mixture.seen)
        self.windows = -(-self._mixture.pairs // window_size)  # of an epoch, nearly equal in size
        self._shuffled: tuple[int, Rows] | None = None
        self._examples: tuple[int, int, Examples] | None = None
        self._segmenting: _Segmenting | None = None
        if rate := config.tokenizer.sampling:
            workers = config.data.workers
            self._segmenting = _Segmenting(
                Segmenter(
                    data.folder,
                    data.manifest["dtype"],
                    rate,
                    self._seed,
                    max_tokens=config.data.max_tokens,
                    tags=frozenset(tag for tag in data.tags if tag is not None),
                ),
                min(4, max(1, cores() // 2)) if workers == "auto" else workers,
            )

    def next(self) -> Batch:
        """The batch at `position`, which then points to the one after it."""
        examples = self._window(self.position)
        batch = examples.batch(examples.plan[self.position.batch])
        data = self._data
        check_ids(data.folder, "source", batch.source_BS, data.source_tokenizer)
        check_ids(data.folder, "target", batch.target_output_BT, data.target_tokenizer)
        self.skip()
        return batch

    def skip(self, count: int = 1) -> None:
        """Move `position` on by that many batches, without making them."""
        for _ in range(count):
            here = self.position
            if here.batch + 1 < len(self._window(here).plan):
                self.position = replace(here, batch=here.batch + 1)
            else:
                self.position = Position(*self._after(here.epoch, here.window), 0)

    @property
    def epochs(self) -> float:
        """How many epochs lie before `position`, with the fraction of the one it is in."""
        here = self.position
        done = here.batch / len(self._window(here).plan)
        return here.epoch + (here.window + done) / self.windows

    @property
    def batches_an_epoch(self) -> int:
        """Of several windows an estimate: as if all were like this one."""
        return self.windows * len(self._window(self.position).plan)

    def padding(self) -> tuple[int, int]:
        """Positions of the batches of this window, both sides, and how many of them hold a token."""
        return self._window(self.position).padding()

    def close(self) -> None:
        """End the processes that sample. The stream cannot be used after."""
        if self._segmenting is not None:
            self._segmenting.close()

    def _after(self, epoch: int, window: int) -> tuple[int, int]:
        return (epoch, window + 1) if window + 1 < self.windows else (epoch + 1, 0)

    def _window(self, position: Position) -> Examples:
        """The sentences of a window as segmented in this epoch, and their batches."""
        epoch, window = position.epoch, position.window
        if self._examples is None or self._examples[:2] != (epoch, window):
            self._examples = (epoch, window, self._read(epoch, window))
        return self._examples[2]

    def _read(self, epoch: int, window: int) -> Examples:
        data = self._data
        links = None
        if self._segmenting is None:
            rows = self._rows(epoch, window)
            source, target = data.source.copied(rows), data.target.copied(rows)
            links = None if data.links is None else data.links.copied(rows)
        else:
            source, target = self._segmenting.take(epoch, window, self._parts)
            if self._segmenting.ahead:
                self._segmenting.begin(*self._after(epoch, window), self._parts)
        plan = plan_epoch(
            source.lengths() + 1,  # end of sentence
            target.lengths() + 1,
            batch_tokens=self._batch_tokens,
            seed=self._seed,
            epoch=epoch,
            window=window,
        )
        return Examples(source, target, plan, links)

    def _rows(self, epoch: int, window: int) -> npt.NDArray[np.int64]:
        """The pairs of a window, ascending."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            rows = self._mixture.rows(epoch)
            if self.windows > 1:
                seeded(self._seed, "windows", epoch).shuffle(rows)
            self._shuffled = (epoch, rows)
        pairs = self._mixture.pairs
        first, end = (pairs * edge // self.windows for edge in (window, window + 1))
        return np.sort(self._shuffled[1][first:end]).astype(np.int64)

    def _parts(self, epoch: int, window: int) -> list[Part]:
        """What is to be sampled of a window: for each side its rows in parts.

        A corpus of one window is one part: it was before there were windows, and runs go on.
        """
        rows = self._rows(epoch, window)
        size = self._part_size if self.windows > 1 else len(rows)
        return [
            Part(side, rows[first : first + size], (epoch, *([window, part] if window or part else [])))
            for side in _SIDES
            for part, first in enumerate(range(0, len(rows), size))
        ]


def _require_seen(data: DataConfig, sizes: Sequence[int], seen: Sequence[int]) -> None:
    """UserError for a corpus whose weight is so small that it rounds to no pair."""
    weights = data.weights or [data.temperature] * len(sizes)
    for prefix, size, count, weight in zip(data.train_prefixes, sizes, seen, weights, strict=True):
        if not (size and weight) or count:
            continue
        if data.weights:
            raise UserError(
                f"data.weights: with {weight:g} no pair of the {size:,} of {prefix} would ever be seen; give "
                f"it {least_weight(size):g} or more, or 0"
            )
        raise UserError(
            f"data.temperature = {weight:g}: no pair of the {size:,} of {prefix} would ever be seen; raise "
            "it, or leave the corpus out"
        )


class _Segmenting:
    """Windows sampled by other processes, one ahead of that in use."""

    def __init__(self, segmenter: Segmenter, workers: int):
        self._pool = Pool(segmenter, workers)
        self._begun: dict[tuple[int, int], list[tuple[Side, Future[Tokens]]]] = {}
        self.ahead = workers > 0

    def begin(self, epoch: int, window: int, parts: Callable[[int, int], list[Part]]) -> None:
        if (epoch, window) not in self._begun:
            found = [(part.side, self._pool.submit(part)) for part in parts(epoch, window)]
            self._begun[epoch, window] = found

    def take(self, epoch: int, window: int, parts: Callable[[int, int], list[Part]]) -> tuple[Tokens, Tokens]:
        """Both sides of a window; waits for what is not done."""
        self.begin(epoch, window, parts)
        found = self._begun.pop((epoch, window))
        for futures in self._begun.values():  # training has moved elsewhere
            for _, future in futures:
                future.cancel()
        self._begun.clear()
        source, target = (
            joined([future.result() for side, future in found if side == wanted]) for wanted in _SIDES
        )
        return source, target

    def close(self) -> None:
        self._pool.close()
