"""What tests share: the command line as a user runs it, quick configurations, text to test with."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

# Before torch is loaded. Tests run two at a time: a thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch

if TYPE_CHECKING:
    from nmt.data.tokenizer import Tokenizer


@dataclass
class Done:
    """What a command left behind."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[str]:
        """Lines of stdout: cut at newlines only."""
        return self.stdout.decode().split("\n")[:-1]


@cache
def _parser() -> Any:
    """What typer makes of `app` for each call, which takes 60 ms."""
    from typer.main import get_command

    from nmt.cli.main import app

    return get_command(app)


class Nmt:
    """The command line. Called, it runs in this process, which saves seconds; `start` makes a real one."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, *arguments: object, stdin: bytes = b"", expect: int = 0) -> Done:
        from nmt.cli.main import run

        streams = sys.stdin, sys.stdout, sys.stderr
        threads, folder = torch.get_num_threads(), Path.cwd()
        output, errors = io.BytesIO(), io.BytesIO()
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
        sys.stdout, sys.stderr = io.TextIOWrapper(output), io.TextIOWrapper(errors)
        os.chdir(self.folder)
        try:
            code = run(lambda: _parser()(list(map(str, arguments)), standalone_mode=False), debug=False)
            sys.stdout.flush()
            sys.stderr.flush()
            done = Done(code, output.getvalue(), errors.getvalue().decode())
        finally:
            os.chdir(folder)
            sys.stdin, sys.stdout, sys.stderr = streams
            torch.set_num_threads(threads)
        assert done.code == expect, (arguments, done.code, done.stderr)
        return done

    def error(self, *arguments: object, stdin: bytes = b"", code: int = 2) -> str:
        """The one line that a failing command says."""
        text = self(*arguments, stdin=stdin, expect=code).stderr
        lines = [line for line in text.split("\n") if line.startswith("nmt: ") and "warning" not in line]
        assert len(lines) == 1, text
        assert "Traceback" not in text, text
        assert text.endswith(lines[0] + "\n"), text
        return lines[0]

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", "from nmt.cli.main import main; main()"]

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """A process of its own, to be killed, typed at or cut off."""
        # A shell starts what it puts in the background with SIGINT ignored, and that is inherited.
        return subprocess.Popen(
            [*self.command, *map(str, arguments)],
            cwd=self.folder,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )

    def fork(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """As `start`, where the process need not begin anew: torch is not loaded again, which saves 1.5 s."""

        def become() -> None:
            code = 70
            try:
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # as a new program has it
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
                sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
                sys.argv = ["nmt", *map(str, arguments)]
                torch.set_num_threads(1)  # OpenMP's threads are not in a fork, which would wait for them
                main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

        from nmt.cli.main import main

        # It never comes to `true`: what runs before is the whole program.
        return subprocess.Popen(["true"], cwd=self.folder, preexec_fn=become, **options)


TINY = """
[data]
train = "corpus/train"
validation = "corpus/validation"
source_language = "en"
target_language = "de"

[tokenizer]
vocabulary_size = 400

[model]
architecture = "transformer"
encoder_layers = 1
decoder_layers = 1
width = 32
feed_forward_width = 64
heads = 2

[training]
max_steps = 12
batch_tokens = 512
warmup_steps = 4
validate_every = 4
log_every = 3
threads = 1
keep_last = 2

[search]
beam_size = 2
max_length_factor = 1.0
max_length_offset = 3
max_source_tokens = 100
"""


# A task on words, `train.in` to `train.out`; a test adds [model].
WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew"]
WORD_TASK = """
[data]
train = "train"
validation = "validation"
source_language = "in"
target_language = "out"

[tokenizer]
type = "word"

[training]
batch_tokens = 800
schedule = "cosine"
betas = [0.9, 0.98]
label_smoothing = 0.0
clip_norm = 1.0
validate_every = 100000
threads = 1
device = "cpu"

[search]
beam_size = 2
"""


@cache
def _corpus() -> dict[str, bytes]:
    from nmt.data.synthetic import SPLITS
    from nmt.data.synthetic import write_corpus as write

    with tempfile.TemporaryDirectory() as folder:
        return {
            path.name: path.read_bytes()
            for path in write(
                Path(folder), sizes=dict.fromkeys(SPLITS, 40) | {"train": 300, "validation": 20}
            )
        }


def write_corpus(folder: Path) -> None:
    """A small offline corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _corpus().items():
        (folder / name).write_bytes(content)


def prepare_folder(folder: Path) -> None:
    """`corpus/` and `tiny.toml`."""
    write_corpus(folder / "corpus")
    (folder / "tiny.toml").write_text(TINY)


TIMES = ("seconds", "target_tokens_per_second", "validation_seconds", "memory_mib")


def end_state(run: Path) -> tuple[Any, ...]:
    """Weights of every checkpoint, metrics without clock readings, the links, and what was left behind."""
    weights = {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.glob("checkpoints/*/model.safetensors"))
    }
    lines = (run / "metrics.jsonl").read_text().splitlines()
    metrics = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    leftovers = [p.name for p in run.rglob("*") if "partial" in p.name]
    links = [str((run / name).readlink()) for name in ("best", "last")]
    return weights, metrics, links, leftovers


def trained_once(text: list[str], sizes: dict[str, int]) -> Callable[[str], Tokenizer]:
    """A tokenizer of each type by its name, trained when first asked for; `sizes` are of vocabularies."""
    from nmt.data.tokenizer import train_tokenizer

    return cache(lambda kind: train_tokenizer(text, type=kind, vocabulary_size=sizes[kind]))


def text_lines(pieces: list[str], characters: str) -> st.SearchStrategy[str]:
    """Lines of any text, of some of `pieces` in a row, and of `characters` alone."""
    return st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n")),
        st.lists(st.sampled_from(pieces)).map("".join),
        st.text(st.sampled_from(characters)),
    )
