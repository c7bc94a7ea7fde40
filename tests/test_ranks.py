"""What several processes agree on, and how they learn that one has ended."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from several import Ended, Several
from torch import nn

from nmt import peers
from nmt.errors import UserError
from nmt.place import Place
from nmt.ranks import ALONE, Group, checksum, joined
from nmt.sums import Sums


def in_group(folder: Path, work: Callable[[Group], Any], size: int = 3) -> list[Any]:
    """What `work` returns in each process, as JSON has it."""

    def run(rank: int) -> int:
        place = Place.of_environment()
        assert place is not None
        with joined(place, lambda ended: os._exit(ended.code)) as ranks:
            found = work(ranks)
            (folder / f"found-{rank}").write_text(json.dumps(found))
        return 0

    ended = Several(folder, run, size).ended(60)
    assert ended.codes == [0] * size, ended.said
    return [json.loads((folder / f"found-{rank}").read_text()) for rank in range(size)]


def test_what_the_first_makes_reaches_all(tmp_path: Path) -> None:
    made = {
        "weights": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7, dtype=torch.int64)},
        "rest": [1, "two", None, {"half": torch.tensor([0.5], dtype=torch.bfloat16)}],
    }

    def work(ranks: Group) -> Any:
        found: Any = ranks.from_first(lambda: made if ranks.is_first else pytest.fail("not mine to make"))
        assert torch.equal(found["weights"]["a"], made["weights"]["a"])  # type: ignore[call-overload, index]
        half = found["rest"][3]["half"]
        assert half.dtype == torch.bfloat16
        return [found["weights"]["b"].item(), found["rest"][:3], half.item()]

    assert in_group(tmp_path, work) == [[7, [1, "two", None], 0.5]] * 3


def test_numbers_are_gathered_by_rank(tmp_path: Path) -> None:
    found = in_group(
        tmp_path, lambda ranks: [ranks.gather([ranks.rank, 0.1]), ranks.gather_objects("x" * ranks.rank)]
    )
    assert found == [[[[0, 0.1], [1, 0.1], [2, 0.1]], ["", "x", "xx"]]] * 3


def test_the_first_prepares_before_the_others(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def work(ranks: Group) -> Any:
        def prepare() -> str:
            if ranks.is_first:
                time.sleep(0.5)
            with log.open("a") as file:
                file.write(str(ranks.rank))
            return f"made by {ranks.rank}"

        return ranks.in_turn(prepare)

    assert in_group(tmp_path, work) == ["made by 0", "made by 1", "made by 2"]
    assert log.read_text()[0] == "0"
    assert sorted(log.read_text()) == ["0", "1", "2"]


def test_gradients_are_summed_in_pieces(tmp_path: Path) -> None:
    """Of two types, of parameters larger than a piece, and of one that has none anywhere."""

    def work(ranks: Group) -> Any:
        shapes = [
            ((7,), torch.float32),
            ((40, 2), torch.float32),
            ((3, 3), torch.float64),
            ((), torch.float32),
        ]
        parameters = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape, dtype in shapes]
        for number, parameter in enumerate(parameters[:3]):
            parameter.grad = torch.full_like(parameter, 10.0**number * (ranks.rank + 1))
        Sums(parameters, ranks.group, bucket=100).finish()
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in parameters)
        return [sorted({x.item() for x in p.grad.flatten()}) for p in parameters if p.grad is not None]

    assert in_group(tmp_path, work) == [[[6.0], [60.0], [600.0], [0.0]]] * 3


def test_weights_that_drift_apart_are_noticed(tmp_path: Path) -> None:
    def work(ranks: Group) -> Any:
        torch.manual_seed(1)
        model = nn.Linear(5, 5)
        ranks.require_same_weights(model)
        if ranks.rank == 2:
            with torch.no_grad():
                model.bias[3] = torch.nextafter(model.bias[3], torch.tensor(9.0))
        with pytest.raises(UserError, match="the weights of rank 2 of 3 are not those of rank 0 any more"):
            ranks.require_same_weights(model)
        return checksum(model)

    found = in_group(tmp_path, work)
    assert found[0] == found[1] != found[2]


def test_what_differs_is_named(tmp_path: Path) -> None:
    def work(ranks: Group) -> Any:
        ranks.require_same("files", {"a": "1", "b": "2"})
        mine = {"a": "1", "b": "2"} if ranks.rank != 1 else {"a": "1", "b": "3", "c": "4"}
        try:
            ranks.require_same("files", mine)
        except UserError as error:
            return str(error)

    found = in_group(tmp_path, work)
    assert found == [found[0]] * 3
    assert found[0].startswith("rank 1 of 3 (on ")
    assert "sees other files than rank 0: b, c; give all processes" in found[0]


def test_alone_there_is_nothing_to_agree_on() -> None:
    assert ALONE.gather([1, 2]) == [[1, 2]]
    assert ALONE.from_first(lambda: "x") == ALONE.in_turn(lambda: "x") == "x"
    ALONE.require_same("files", {"a": "1"})


@pytest.mark.parametrize(
    "error", [UserError("no; yes"), ValueError("what"), RuntimeError("odd"), KeyboardInterrupt()]
)
def test_the_first_error_is_everyones(tmp_path: Path, error: BaseException) -> None:
    heard = tmp_path / "heard"

    def run(rank: int) -> int:
        place = Place.of_environment()
        assert place is not None

        def end(ended: peers.Ended) -> None:
            with heard.open("a") as file:
                file.write(f"{rank} {ended.rank} {ended.code} {ended.message}\n")
            os._exit(ended.code)

        with joined(place, end) as ranks:
            if rank == 1:
                raise error
            time.sleep(60)  # in no collective operation at all
            ranks.gather([0])
        return 0

    ended: Ended = Several(tmp_path, run, 3).ended(30)
    code, text = {
        UserError: (2, "no; yes"),
        ValueError: (1, "ValueError: what"),
        RuntimeError: (1, "RuntimeError: odd"),
        KeyboardInterrupt: (130, "interrupted"),
    }[type(error)]
    assert ended.codes == [code, 70, code]  # 70: not caught
    assert sorted(heard.read_text().split("\n")[:-1]) == [f"{rank} 1 {code} {text}" for rank in (0, 2)]


def test_strangers_are_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not know the token is no process of ours, whatever it says."""
    store: dict[str, bytes] = {}

    class Store:
        def set(self, name: str, value: str) -> None:
            store[name] = value.encode()
            port = int(value.split()[0])
            for said in (b"", b"GET / HTTP/1.0\r\n\r\n", b'{"token": "x", "rank": 1, "group": 0}\n', b"[]\n"):
                with socket.create_connection(("127.0.0.1", port)) as stranger:
                    stranger.sendall(said)
            self.client = peers.Peers(1, 2, 0, lambda ended: None)
            self.client.rank = 1
            thread_connect(self.client)

        def get(self, name: str) -> bytes:
            return store[name]

    def thread_connect(client: peers.Peers) -> None:
        import threading

        threading.Thread(
            target=client.connect, args=(shared, "127.0.0.1"), kwargs={"one_machine": True}
        ).start()

    shared = Store()
    heard: list[peers.Ended] = []
    hub = peers.Peers(0, 2, 0, heard.append)
    hub.connect(shared, "127.0.0.1", one_machine=True)
    said = shared.client.report("the reason", 2, is_cause=True)
    assert said == peers.Ended(1, 0, "the reason", 2)
    end = time.monotonic() + 10
    while not heard and time.monotonic() < end:
        time.sleep(0.01)
    assert heard == [said]
    # Whose watcher says it and ends the process leaves nothing for others to say: they wait.
    monkeypatch.setattr(peers, "_SILENCE", 0.5)
    began = time.monotonic()
    assert hub.report("a connection broke", 1, is_cause=False) == said
    assert time.monotonic() - began >= 0.5


VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),  # not of torchrun
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "5"},
            Place(1, 2, 1, 2, 0, "h", 5),
        ),
        (
            dict(zip(VARIABLES, ("5", "8", "1", "4", "1", "h", "5"), strict=True)),
            Place(5, 8, 1, 4, 1, "h", 5),
        ),
        (dict(zip(VARIABLES, ("8", "8", "1", "4", "1", "h", "5"), strict=True)), UserError),
        (dict(zip(VARIABLES, ("-1", "8", "1", "4", "1", "h", "5"), strict=True)), UserError),
        (dict(zip(VARIABLES, ("5", "8", "1", "4", "1", "", "5"), strict=True)), UserError),
        (dict(zip(VARIABLES, ("5", "8", "1", "4", "1", "h", "x"), strict=True)), UserError),
        (dict(zip(VARIABLES, ("5", "8", "1", "4", "1", "h", "65536"), strict=True)), UserError),
    ],
)
def test_the_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str], expected: Any) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    if expected is UserError:
        with pytest.raises(UserError, match="in the environment is not what torchrun sets"):
            Place.of_environment()
    else:
        assert Place.of_environment() == expected


def test_the_interface_to_another_machine() -> None:
    found = peers.reach("127.0.0.1")
    assert found is None or found in {name for _, name in socket.if_nameindex()}
    assert peers.reach("no such name.invalid") is None
