"""Chromium without a window, driven by its DevTools protocol: JSON over two pipes, zero bytes between."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
    ),
    "--remote-debugging-pipe",
]


def find_chromium() -> str:
    """The program; skips the test where there is none."""
    for name in PROGRAMS:
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip("needs Chromium, which is not installed")


class Browser:
    """One page, and all that it says and asks for: `complaints` and `requests`."""

    def __init__(self, folder: Path):
        """`folder` is new and empty; the browser's own files go there."""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        self._number = 0
        # Chromium reads at 3 and writes at 4.
        read, self._send = os.pipe()
        self._receive, write = os.pipe()

        def place() -> None:
            spare = [os.dup(read), os.dup(write)]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self._process = subprocess.Popen(
            [find_chromium(), *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            pass_fds=(3, 4),
        )
        os.close(read)
        os.close(write)
        self._messages = self._read()
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._send)
        os.close(self._receive)

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and wait for its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := next(self._messages)).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(self, address: str, *, width: int = 1000, height: int = 800, dark: bool = False) -> None:
        """Load a page and wait until it says that it is drawn (body.dataset.ready), or has no script."""
        phone = width < 500
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        # An address that differs after the # alone would not be loaded again.
        for url in ("about:blank", address):
            self._loaded = False
            self.call("Page.navigate", url=url)
            while not self._loaded:
                self._note(next(self._messages))
        self.wait("!document.querySelector('script:not([type])') || document.body.dataset.ready === 'yes'")

    def wait(self, condition: str) -> None:
        """Until an expression holds, ten seconds at most."""
        script = f"""new Promise((done, fail) => {{
            const end = performance.now() + 10000;
            const look = () => ({condition}) ? done(true)
                : performance.now() > end ? fail(new Error("never: " + {json.dumps(condition)}))
                : setTimeout(look, 10);
            look();
        }})"""
        assert self.evaluate(script) is True

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        """Type keys, by their names in JavaScript."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            if key in ("Enter", " "):
                text = {"text": "\r" if key == "Enter" else " "}
            code = {"Tab": 9, "Enter": 13, " ": 32}.get(key, 0)
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def pointer(self, x: float, y: float, kind: str = "mouseMoved") -> None:
        button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def _read(self) -> Iterator[dict[str, Any]]:
        rest = b""
        while True:
            assert select.select([self._receive], [], [], 60)[0], "Chromium says nothing"
            if not (data := os.read(self._receive, 1 << 16)):
                raise AssertionError("Chromium has ended")
            *whole, rest = (rest + data).split(b"\0")
            for raw in whole:
                yield json.loads(raw)

    def _note(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(about["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(about["exceptionDetails"]))
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.complaints.append(about["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            case _:
                pass
