"""How many sentences are searched together: on several cores at once, and with what memory there is."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial
from typing import Generic, TypeVar

import torch

from nmt.errors import SentenceError
from nmt.models.seam import Model
from nmt.parallel import Copies, can_fork, in_threads

Source = TypeVar("Source", bound=Sized)  # its length is in tokens
Result = TypeVar("Result")
# From sources, longest first, and source tokens a batch to each source's index and result, when it is found.
SearchFor = Callable[[Sequence[Source], int], Iterator[tuple[int, Result]]]

# Source tokens that a core searches together where nothing is asked for. A step's work grows with the width's
# square and what begins it does not: of narrow models more, of wide ones so few that they stay in the cache.
_TOKENS_A_CORE, _MOST_TOKENS_A_CORE = 1024, 4096
_WORK_A_CORE = 2**28  # tokens x width x width
# Fewer sentences than these, and one search with all cores is as fast.
_SENTENCES_A_WORKER = 16
# From so many on a process of its own is worth its start, some hundredths of a second.
_SENTENCES_A_PROCESS = 100
# The share of a GPU's free memory that a batch may take, the rest being for what lives for a moment.
_SHARE = 0.4


class Searching(Generic[Source, Result]):
    """A search of many sources, begun in other processes where that pays, to be ended by `results`.

    When memory runs out, what is found is kept and the rest is searched in batches of half the size.
    """

    def __init__(
        self,
        search: SearchFor[Source, Result],
        sources: Sequence[Source],
        *,
        batch_tokens: int | None,
        device: torch.device,
        model: Model,
    ):
        """
        Args:
            batch_tokens: source tokens, padding counted, of all cores together; None: what fits the cache of
                a processor's core, or the free memory of a GPU.
            model: says by its sizes how much memory a token of a batch takes on a GPU.
        """
        self._search, self._sources, self._device = search, sources, device
        # Longest first: if memory runs out it does so at once.
        self._waiting = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        self._workers = _workers(len(sources), device)
        self._tokens = _fitting(device, self._workers, model) if batch_tokens is None else batch_tokens
        self._begin()

    def results(self, look: Callable[[], None] = lambda: None) -> list[Result]:
        """The results of all sources, in their order.

        `look` is called with each result that comes; what it raises ends the search.

        Raises:
            SentenceError: there is not memory enough for a single sentence.
        """
        found: dict[int, Result] = {}
        while self._waiting:
            try:
                self._end(found, look)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(found) == len(self._sources):  # a process died when its work was done
                    break
                self._ask_for_less(found)
            # Here, where nothing refers to the failed search any more.
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self._begin()
        return [found[index] for index in range(len(self._sources))]

    def close(self) -> None:
        """End what has begun."""
        if self._copies is not None:
            self._copies.close()

    def _begin(self) -> None:
        """Deal out what waits; where it goes to other processes they begin."""
        processes = min(self._workers, len(self._waiting) // _SENTENCES_A_PROCESS)
        forks = processes > 1 and can_fork()
        at_once = processes if forks else self._workers
        self._shares = [self._waiting[worker::at_once] for worker in range(at_once)]
        self._copies = None
        if forks:
            sources = [[self._sources[i] for i in share] for share in self._shares]
            # Where no more processes may be begun, threads share the work.
            with contextlib.suppress(OSError):
                self._copies = Copies([partial(self._search, share, self._each) for share in sources])

    @property
    def _each(self) -> int:
        """Tokens of a search's batch."""
        return self._tokens // self._workers

    def _end(self, found: dict[int, Result], look: Callable[[], None]) -> None:
        def work(share: list[int]) -> None:
            for place, result in self._search([self._sources[i] for i in share], self._each):
                found[share[place]] = result
                look()

        if self._copies is not None:
            for worker, (place, result) in self._copies:
                found[self._shares[worker][place]] = result
                look()
        elif self._workers == 1:
            work(self._waiting)
        else:
            in_threads([partial(work, share) for share in self._shares])

    def _ask_for_less(self, found: dict[int, Result]) -> None:
        waiting = [index for index in self._waiting if index not in found]
        longest = len(self._sources[waiting[0]]) + 1
        if self._workers == 1 and self._tokens < 2 * longest:  # it was alone
            raise SentenceMemoryError(
                f"out of memory with a single sentence of {longest} tokens; lower the beam size or "
                "search.max_source_tokens, or translate on another device",
                waiting[0],
            ) from None
        self._waiting = waiting
        self._tokens = max(min(self._tokens // 2, longest * len(waiting) // 2), longest)
        # Each with room for a sentence.
        self._workers = max(1, min(_workers(len(waiting), self._device), self._tokens // longest))


class SentenceMemoryError(SentenceError):
    """There is not memory enough for a single sentence."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python found no memory, on any device."""
    says = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in says)
    )


def _workers(count: int, device: torch.device) -> int:
    """Searches at once: one a core where there are sentences enough."""
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    return max(1, min(cores, count // _SENTENCES_A_WORKER))


def _fitting(device: torch.device, workers: int, model: Model) -> int:
    if device.type != "cuda":
        fitting: int = _WORK_A_CORE // model.embeddings.target.embedding_dim**2
        return max(_TOKENS_A_CORE, min(fitting, _MOST_TOKENS_A_CORE)) * workers
    free, _ = torch.cuda.mem_get_info(device)
    # Keys and values of the source and, for some five hypotheses, of the target, in every layer; scores.
    numbers = sum(p.size(0) * 12 for p in model.parameters() if p.dim() == 2)
    return max(_TOKENS_A_CORE, int(free * _SHARE / (4 * numbers)))
