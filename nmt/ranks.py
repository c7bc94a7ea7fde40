"""What the processes of a training agree on: start, sums, who writes, the end.

A rank is the number of a process, from 0. `ALONE` is a training in one process, in which all this is
nothing. Otherwise small numbers and text go through gloo on the CPU, gradients of GPUs through nccl, and
that a process has died through `nmt.peers`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from nmt.errors import UserError
from nmt.peers import Ended, Peers, reach
from nmt.place import Place

T = TypeVar("T")

# How long a process waits for another that lives: rank 0 may write a checkpoint to a slow disk.
_PATIENCE = timedelta(hours=2)
# How long for all to come when training begins; torchrun starts them together, on all machines.
_MEETING = timedelta(minutes=1)


class EndedElsewhere(Exception):
    """Another process ended; this one ends with it."""

    def __init__(self, ended: Ended):
        super().__init__(ended.message)
        self.ended = ended


class Ranks:
    """One process among those of a training. This class is a training in one process; see `Group`."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1  # processes on this machine
    group: Any = None  # torch's, for gradients; None where its default will do

    @property
    def is_first(self) -> bool:
        """Whether this process opens, logs and saves."""
        return self.rank == 0

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Everyone's numbers, by rank; as many from each."""
        return [list(numbers)]

    def gather_objects(self, mine: T) -> list[T]:
        """Everyone's, by rank."""
        return [mine]

    def from_first(self, make: Callable[[], T], part: Callable[[Tensor], Tensor] | None = None) -> T:
        """What rank 0 makes; tensors in it are on the CPU.

        Args:
            part: what to keep of each tensor, here; they come one by one.
        """
        return make()

    def in_turn(self, work: Callable[[], T]) -> T:
        """Each its own, but rank 0 before the others, and on every machine the first before the rest:
        for work that writes files which the next ones find. There is no limit to how long it takes."""
        return work()

    def use(self, device: torch.device) -> None:
        """Say where gradients will be."""

    def require_same(self, what: str, mine: Mapping[str, str]) -> None:
        """UserError unless all processes have the same values under the same names.

        Args:
            what: of the message: what the names are.
        """

    def require_same_weights(self, model: nn.Module) -> None:
        """UserError if the weights are not bit-equal on all processes."""


ALONE = Ranks()


class Group(Ranks):
    """One of several processes."""

    def __init__(self, place: Place, peers: Peers):
        self.rank, self.size = place.rank, place.size
        self.local_rank, self.local_size = place.local_rank, place.local_size
        self.peers = peers

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        mine = torch.tensor(numbers, dtype=torch.float64)
        everyones = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyones, mine)
        return [tensor.tolist() for tensor in everyones]

    def gather_objects(self, mine: T) -> list[T]:
        everyones: list[Any] = [None] * self.size
        dist.all_gather_object(everyones, mine)
        return everyones

    def from_first(self, make: Callable[[], T], part: Callable[[Tensor], Tensor] | None = None) -> T:
        tensors: list[Tensor] = []
        sent: list[Any] = [None]
        if self.is_first:
            made = make()
            content = _pickled(made, tensors)
            sent = [(content, [(tuple(t.shape), t.dtype) for t in tensors])]
        dist.broadcast_object_list(sent, device=torch.device("cpu"))
        content, kinds = sent[0]
        for number, (shape, dtype) in enumerate(kinds):
            tensor = tensors[number] if self.is_first else torch.empty(shape, dtype=dtype)
            dist.broadcast(tensor, src=0)
            kept = tensor if part is None else part(tensor)
            if self.is_first:
                tensors[number] = kept
            else:
                tensors.append(kept)
        return made if self.is_first and part is None else _unpickled(content, tensors)

    def in_turn(self, work: Callable[[], T]) -> T:
        if self.is_first:
            result = work()
            self.peers.give_turn()
        else:
            self.peers.wait_turn()
            if self.local_rank == 0:
                result = work()
        # Machines do this in the same time, unless they have no common disk: then preparation is repeated.
        everyone_waits = self.gather_objects(None)
        assert len(everyone_waits) == self.size
        return result if self.is_first or self.local_rank == 0 else work()

    def use(self, device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
            self.group = dist.new_group(backend="nccl", timeout=_PATIENCE)
            # Connected now, not in the first backward pass, when memory is fullest.
            dist.all_reduce(torch.zeros(1, device=device), group=self.group)

    def require_same(self, what: str, mine: Mapping[str, str]) -> None:
        everyones = self.gather_objects((dict(mine), os.uname().nodename))
        first, _ = everyones[0]
        for rank, (theirs, machine) in enumerate(everyones):
            different = [name for name in {**first, **theirs} if first.get(name) != theirs.get(name)]
            if different:
                raise UserError(
                    f"rank {rank} of {self.size} (on {machine}) sees other {what} than rank 0: "
                    f"{', '.join(different)}; give all processes the same command and the same files"
                )

    def require_same_weights(self, model: nn.Module) -> None:
        sums = self.gather_objects(checksum(model))
        different = [rank for rank, found in enumerate(sums) if found != sums[0]]
        if different:
            raise UserError(
                f"the weights of rank {different[0]} of {self.size} are not those of rank 0 any more: their "
                "processors or libraries round differently; train on machines of one kind. The same command "
                "goes on from the last checkpoint"
            )


def _pickled(made: object, tensors: list[Tensor]) -> bytes:
    """For another process of this training; tensors are left out, and appended to a list."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: object) -> int | None:
            if not isinstance(item, Tensor):
                return None
            tensors.append(item.contiguous())
            return len(tensors) - 1

    buffer = io.BytesIO()
    Pickler(buffer).dump(made)
    return buffer.getvalue()


def _unpickled(content: bytes, tensors: list[Tensor]) -> Any:
    class Unpickler(pickle.Unpickler):
        def persistent_load(self, number: int) -> Tensor:
            return tensors[number]

    return Unpickler(io.BytesIO(content)).load()


def checksum(model: nn.Module) -> int:
    """Of the bits of all weights."""
    kinds = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    total = 0
    for number, parameter in enumerate(model.parameters(), start=1):
        bits = parameter.detach().contiguous().view(kinds[parameter.element_size()])
        total += number * int(bits.sum(dtype=torch.int64))
    return total


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def joined(place: Place, end: Callable[[Ended], None]) -> Iterator[Group]:
    """The group of a process that torchrun started, until the body is done.

    An error in the body ends all processes, with the error of the first that had one.

    Args:
        end: called in a thread when another process has ended; must end this one.

    Raises:
        UserError: the others do not come.
        EndedElsewhere: the body failed, because or after another process ended.
    """
    peers = Peers(place.rank, place.size, place.group, end)
    _meet(place, peers)
    try:
        yield Group(place, peers)
    except BaseException as error:
        code, message = _account(error)
        ended = peers.report(message, code, is_cause=not isinstance(error, RuntimeError))
        if ended.rank != place.rank:
            raise EndedElsewhere(ended) from None
        raise
    peers.close()
    dist.destroy_process_group()


def _meet(place: Place, peers: Peers) -> None:
    if place.size > place.local_size and not os.environ.get("GLOO_SOCKET_IFNAME"):
        # Else gloo takes the address of this machine's name, which often no other machine reaches.
        interface = reach(place.host)
        if interface:
            os.environ["GLOO_SOCKET_IFNAME"] = interface
    try:
        store, rank, size = next(rendezvous("env://", timeout=_MEETING))
        # First of all: from here on nobody waits for one that has died.
        one_machine = place.size == place.local_size
        peers.connect(store, place.host, one_machine=one_machine, patience=_MEETING.total_seconds())
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    except (RuntimeError, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"rank {place.rank} of {place.size} could not meet the others at {place.host}:{place.port} "
            f"({text}); see that all are started and reach that address"
        ) from None


def _account(error: BaseException) -> tuple[int, str]:
    """Exit code and line of an error, as `nmt.cli.main` has them."""
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    return 1, " ".join(f"{type(error).__name__}: {error}".split())
