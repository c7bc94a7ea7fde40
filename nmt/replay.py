"""Steps of search on a GPU, recorded once and replayed.

A step of a Transformer of six layers launches some three hundred kernels, each for work of a few
microseconds: launching them takes longer than the work. A CUDA graph launches them all at once. What it
computes with stands where it stood when it was recorded, so each step's results are written back to where
they came from.

Nothing here knows what a model is. B sentences, K hypotheses, T target positions.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from nmt.search import TENSORS, Method, Rows, SearchState, Step, advance

# Steps of the same shapes before one is recorded: recording takes as long as a few steps.
_STEPS_BEFORE = 2
_FREE = 0.25  # of a device's memory; with less, what nobody uses is given back before a recording


class FixedSearchState(SearchState, Protocol):
    """A state whose tensors can stay where they are, for some steps."""

    @property
    def room(self) -> int | None:
        """How many; None: for ever."""

    def aged(self) -> Self:
        """After a replayed step: what of the state is no tensor."""


StateT = TypeVar("StateT", bound=FixedSearchState)


class Recording(Protocol):
    """A computation that can be done again with what now stands where its operands stood."""

    def replay(self) -> None: ...


def on_gpu(compute: Callable[[], object]) -> Recording:
    """`compute` as a CUDA graph. Python runs once, the device not before `replay`.

    Raises:
        RuntimeError: it does something that cannot be recorded, such as asking the device for a number.
    """
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    if free < total * _FREE:  # a recording cannot take what the allocator holds for others
        torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    stream = _stream(torch.cuda.current_device())
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")  # other threads may go on
        try:
            compute()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # that it was broken off is known
                graph.capture_end()
            raise
        graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


@cache
def _stream(device: int) -> torch.cuda.Stream:
    """One for all recordings on a device: each stream has a workspace for products that it keeps."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Replay(Generic[StateT]):
    """`nmt.search.advance`, replayed wherever the step before had the same tensors in the same places."""

    def __init__(
        self,
        step: Step[StateT],
        method: Method,
        record: Callable[[Callable[[], object]], Recording] = on_gpu,
    ):
        self._step, self._method, self._record = step, method, record
        self._places: tuple[object, ...] = ()
        self._steps = 0  # with these places
        self._recording: Recording | None = None
        self._records = True
        self.replayed = 0  # steps, of all

    def __call__(self, rows: Rows, state: StateT) -> StateT:
        """All sentences a token further: changes `rows`, but for their ages; returns the next state."""
        if not rows.room or state.room == 0:  # Python makes room first
            return self._in_place(rows, state)
        places = tuple(
            (t.data_ptr(), t.shape, t.stride(), t.dtype) for t in (*_of_rows(rows), *_of_state(state))
        )
        if places != self._places:
            self._places, self._steps, self._recording = places, 0, None
        self._steps += 1
        if self._steps <= _STEPS_BEFORE or not self._records:
            return self._in_place(rows, state)
        if self._recording is None and not self._try(rows, state):
            return self._in_place(rows, state)
        assert self._recording is not None
        self._recording.replay()
        self.replayed += 1
        return state.aged()

    def _try(self, rows: Rows, state: StateT) -> bool:
        """Record a step; whether that was possible."""
        before = [getattr(rows, name) for name in TENSORS]
        try:
            self._recording = self._record(lambda: self._in_place(rows, state))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._records = False
            for name, tensor in zip(TENSORS, before, strict=True):
                setattr(rows, name, tensor)
            warnings.warn(f"steps are not replayed, which is slower: {error}", stacklevel=2)
        return self._records

    def _in_place(self, rows: Rows, state: StateT) -> StateT:
        """`advance`, with the results where their predecessors were, wherever these have the same size."""
        before = {name: getattr(rows, name) for name in TENSORS}
        after = advance(self._step, self._method, rows, state, None)
        taken = {t.untyped_storage().data_ptr() for t in (*before.values(), *_of_state(state))}
        put: list[tuple[Tensor, Tensor]] = []
        for name, old in before.items():
            setattr(rows, name, _back(old, getattr(rows, name), taken, put))
        after = _back_all(state, after, taken, put)
        for old, new in put:
            old.copy_(new)
        return after


def _back(old: Tensor, new: Tensor, taken: set[int], put: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Where `new` is to stand: at `old`'s place, if it fits. What is to be copied there is added to `put`."""
    if new is old or new.shape != old.shape or new.dtype != old.dtype:
        return new
    if new.data_ptr() == old.data_ptr() and new.stride() == old.stride():
        return old
    # What stands in a place that is written to is read before.
    put.append((old, new.clone() if new.untyped_storage().data_ptr() in taken else new))
    return old


def _back_all(old: Any, new: Any, taken: set[int], put: list[tuple[Tensor, Tensor]]) -> Any:
    """`_back` of all tensors of a state; `new` has the same fields as `old`."""
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        return _back(old, new, taken, put)
    if isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)) and len(new) == len(old):
        return type(new)(_back_all(*pair, taken, put) for pair in zip(old, new, strict=True))
    if is_dataclass(new) and not isinstance(new, type) and type(old) is type(new):
        parts = {f.name: (getattr(old, f.name), getattr(new, f.name)) for f in fields(new)}
        changed = {name: _back_all(*pair, taken, put) for name, pair in parts.items()}
        return replace(new, **changed)
    return new


def _of_rows(rows: Rows) -> Iterator[Tensor]:
    return (getattr(rows, name) for name in TENSORS)


def _of_state(state: Any) -> Iterator[Tensor]:
    """All tensors in it."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, (list, tuple)):
        for part in state:
            yield from _of_state(part)
    elif is_dataclass(state):
        for field in fields(state):
            yield from _of_state(getattr(state, field.name))
