"""An engine in a process of its own, `python -m bench.worker SPEC`, and how to talk to it.

Requests are lines of JSON on standard input, each with `lines` to translate; answers are lines of JSON.
Between requests it sleeps, so that several can wait beside each other while one is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

from nmt.memory import peak_mib, tree_mib

from .engines import Spec, load


class Worker:
    """A context manager; `start` takes as long as the engine takes to load."""

    def __init__(self, spec: Spec):
        self.spec = spec
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "OMP_NUM_THREADS": str(spec.threads),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        if spec.engine == "nmt":  # as the command line does
            environment.setdefault("GOMP_SPINCOUNT", "1000")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.worker", spec.as_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        try:
            self.computes: str = self._answer()["computes"]
        except BaseException:
            self.close()
            raise

    def translate(self, lines: list[str], batch: int | None = None, look: float = 1.0) -> dict[str, Any]:
        """`texts`, `tokens`, `seconds` of wall clock, and `peak_mib`, the most memory meanwhile.

        Args:
            batch: another size than that of the Spec, this once.
            look: seconds from one look at the memory to the next; a look costs milliseconds.
        """
        assert self.process.stdin is not None
        request = {"lines": lines, "batch": batch or self.spec.batch}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        with _Watch(self.process.pid, look) as watch:
            answer = self._answer()
        return {**answer, "peak_mib": watch.peak_mib or answer["peak_mib"]}

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ChildProcessError(f"{self.spec.name} ended; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Watch:
    """A thread that notes the memory of a process and its descendants, all together, until the block ends."""

    def __init__(self, process: int, seconds: float):
        self.peak_mib = 0.0  # stays 0 where the system does not say
        self._process, self._seconds = process, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(self._seconds):
            self.peak_mib = max(self.peak_mib, tree_mib(self._process))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    engine = load(Spec(**json.loads(sys.argv[1])))

    def answer(**keys: Any) -> None:
        answers.write(json.dumps(keys) + "\n")
        answers.flush()

    answer(computes=engine.computes)
    for request in sys.stdin:
        asked = json.loads(request)
        began = time.perf_counter()
        texts, tokens = engine.translate(asked["lines"], asked["batch"])
        seconds = time.perf_counter() - began
        answer(texts=texts, tokens=tokens, seconds=seconds, peak_mib=peak_mib())


if __name__ == "__main__":
    main()
