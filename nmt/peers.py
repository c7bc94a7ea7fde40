"""How the processes of a training learn that one of them has ended, and why.

Every process holds a connection to the first, which passes on the first end that it hears of. A process
that is killed is noticed by its connection, which the system closes; a machine that vanishes by
keep-alive packets, which the system sends and answers even where Python is busy. So no process waits
for a dead one in a collective operation, whatever that operation's own patience.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

# Seconds until a machine that does not answer counts as gone.
_SILENCE = 30
# Seconds for the cause to be heard of, where a process knows only that a connection broke.
_GRACE = 3.0
_POLL = 0.5


@dataclass(frozen=True)
class Ended:
    """The end of a process before the end of training. `message` is None where it could not say why."""

    rank: int
    group: int  # the machine, as torchrun numbers them
    message: str | None
    code: int  # exit code


class Peers:
    """The connections of one process to the others.

    Args:
        on_end: called in a thread of ours with the first end that is heard of, and must not return: the
            main thread may hang. Not called in the process that ended.
    """

    def __init__(self, rank: int, size: int, group: int, on_end: Callable[[Ended], None]):
        self.rank, self.size, self.group = rank, size, group
        self.on_end = on_end
        self.ended: Ended | None = None
        self._turn = 0
        self._news = threading.Condition()
        self._reporting = False
        self._handed_over = False  # the end was heard of, and `on_end` ends this process
        self._closing = False
        self._sockets: dict[int, socket.socket] = {}  # by rank
        self._groups: dict[int, int] = {rank: group}
        self._left: set[int] = set()
        self._sending = threading.Lock()

    def connect(self, store: Any, host: str, *, one_machine: bool, patience: float = 60) -> None:
        """Meet the others.

        Args:
            store: torch.distributed's, where the first process says where it listens.
            host: where the first process is.
            one_machine: whether all are on it; then no other is listened to.
            patience: seconds to wait for them.

        Raises:
            OSError: they cannot be reached.
        """
        if self.rank == 0:
            token = secrets.token_hex(16)
            with _listen(host if one_machine else None) as listener:
                store.set("nmt/peers", f"{listener.getsockname()[1]} {token}")
                end = time.monotonic() + patience
                while len(self._sockets) < self.size - 1:
                    listener.settimeout(max(0.01, end - time.monotonic()))
                    connection, _ = listener.accept()
                    self._welcome(connection, token)
        else:
            port, token = store.get("nmt/peers").decode().split()
            connection = socket.create_connection((host, int(port)), timeout=_SILENCE)
            _keep_alive(connection)
            self._sockets[0] = connection
            self._send(0, {"token": token, "rank": self.rank, "group": self.group})
        for connection in self._sockets.values():
            connection.settimeout(None)
        threading.Thread(target=self._watch, daemon=True, name="peers").start()

    def _welcome(self, connection: socket.socket, token: str) -> None:
        """Take a connection, if it is from one of ours."""
        connection.settimeout(_SILENCE)
        try:
            hello = _read_line(connection)
            if hello.get("token") != token:
                raise ValueError
            rank = int(hello["rank"])
            self._groups[rank] = int(hello["group"])
        except (OSError, ValueError, KeyError):
            connection.close()
            return
        _keep_alive(connection)
        self._sockets[rank] = connection

    # What is said

    def report(self, message: str, code: int, *, is_cause: bool) -> Ended:
        """Say that this process ends; returns the first end, which may be another's.

        Args:
            is_cause: False where it ends because a connection broke: what broke it is waited for.
        """
        with self._news:
            if self._handed_over:  # it is being said already
                self._news.wait_for(lambda: False, timeout=_SILENCE)
            self._reporting = True
            if not is_cause:
                self._news.wait_for(lambda: self.ended is not None, timeout=_GRACE)
        mine = Ended(self.rank, self.group, message, code)
        if self.rank == 0:
            self._hear(mine)
        else:
            self._send(0, {"ended": asdict(mine)})
        with self._news:
            self._news.wait_for(lambda: self.ended is not None, timeout=_SILENCE)
            return self.ended or mine

    def give_turn(self) -> None:
        """Let the other processes go on that `wait_turn` (the first process only)."""
        for rank in self._sockets:
            self._send(rank, {"turn": True})

    def wait_turn(self) -> None:
        """Wait for the first process to `give_turn`, however long it takes."""
        with self._news:
            while not self._turn:
                self._news.wait(_POLL)  # in pieces, so that a signal is answered
            self._turn -= 1

    def close(self) -> None:
        """Leave in order: no other process ends for it."""
        self._closing = True
        for rank in self._sockets:
            self._send(rank, {"bye": True})

    def _send(self, rank: int, what: dict[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):  # that it is gone, `_watch` notices
            self._sockets[rank].sendall(json.dumps(what).encode() + b"\n")

    # What is heard

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        for rank, connection in self._sockets.items():
            selector.register(connection, selectors.EVENT_READ, (rank, bytearray()))
        while selector.get_map():
            for key, _ in selector.select():
                rank, buffer = key.data
                try:
                    received = key.fileobj.recv(65536)  # type: ignore[union-attr]
                except OSError:
                    received = b""
                buffer += received
                while (end := buffer.find(b"\n")) >= 0:
                    self._take(rank, json.loads(buffer[:end]))
                    del buffer[: end + 1]
                if not received:
                    selector.unregister(key.fileobj)
                    if rank not in self._left and not self._closing:
                        self._hear(Ended(rank, self._groups.get(rank, 0), None, 1))

    def _take(self, rank: int, what: dict[str, Any]) -> None:
        if "turn" in what:
            with self._news:
                self._turn += 1
                self._news.notify_all()
        elif "bye" in what:
            self._left.add(rank)
        elif "ended" in what:
            self._hear(Ended(**what["ended"]))

    def _hear(self, ended: Ended) -> None:
        with self._news:
            if self.ended is not None:
                return
            self.ended = ended
            self._handed_over = not self._reporting and ended.rank != self.rank
            self._news.notify_all()
        if self.rank == 0:
            for rank in self._sockets:
                self._send(rank, {"ended": asdict(ended)})
        if self._handed_over:
            self.on_end(ended)


def reach(host: str) -> str | None:
    """The name of the network interface by which this machine reaches `host`, where the system tells."""
    try:
        import fcntl
        import struct

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            address = socket.inet_aton(probe.getsockname()[0])
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # it has no address
                    request = struct.pack("256s", name.encode()[:15])
                    if fcntl.ioctl(probe.fileno(), 0x8915, request)[20:24] == address:  # SIOCGIFADDR
                        return name
    except (ImportError, OSError):
        pass
    return None


def _listen(host: str | None) -> socket.socket:
    """On a port of `host`, or of all addresses: this machine may know itself by another than others do."""
    if host is not None:
        return socket.create_server((host, 0), backlog=128)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
    return socket.create_server(("", 0), backlog=128)


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _SILENCE // 3),
        ("TCP_KEEPINTVL", _SILENCE // 6),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", _SILENCE * 1000),
    ):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _read_line(connection: socket.socket) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        received = connection.recv(1)
        if not received or len(line) > 1000:
            raise ValueError
        line += received
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError
    return found
