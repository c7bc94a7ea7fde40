"""Tasks for `nmt.data.pool`, in a module that workers can import."""

from __future__ import annotations

import os
import signal
import time

from nmt.errors import UserError


class Square:
    """Squares; -1 is a user's mistake, -2 an error that cannot be pickled, -3 a death."""

    def __call__(self, number: int) -> int:
        if number == -1:
            raise UserError("is negative; use another", file="numbers", line=3)
        if number == -2:
            raise type("Odd", (Exception,), {})("odd")
        if number == -3:
            os.kill(os.getpid(), signal.SIGKILL)
        print("noise")  # must not reach the results
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number


class Unreadable:
    """A task that can be sent and not be read."""

    def __call__(self, number: int) -> int:
        return number

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return _refuse, ("of what is missing here",)


def _refuse(what: str) -> None:
    raise ModuleNotFoundError(what)
