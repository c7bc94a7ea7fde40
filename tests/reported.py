"""Runs to report on: of two Transformers and of a model without attention, trained in seconds."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from support import TINY, Nmt

RUNS = ("runs/tiny", "runs/other", "runs/plain")
_MODEL = TINY[TINY.index("[model]") : TINY.index("[training]")]
_PLAIN = '[model]\narchitecture = "recurrent"\nembedding_width = 24\nhidden_width = 24\nlayers = 1\n\n'
HOSTILE = [
    ("</script><script>document.title = 'broken'</script>", "<!--<script>"),
    ("\u202egnorw\u202c \u2066x\u2069", "\" ' ` ${x} \\u003c &lt;</title> {{data}} {{script}}"),
    ("שלום עולם 漢字 😀👩‍👩‍👧 \u2028 \u2029 \u0085 \x1b[31m", "😀 \u200b\ufeff"),
    ("x" * 10_000, "y" * 10_000),
    ("", "a reference of nothing"),
    ("something", ""),
]


@cache
def _trained(tiny: Path, folder: Path) -> Path:
    shutil.copytree(tiny, folder, symlinks=True)
    nmt = Nmt(folder)
    nmt("train", "tiny.toml", "--set", "training.seed=2", "--set", "data.test=corpus/test", "--run", RUNS[1])
    (folder / "plain.toml").write_text(TINY.replace(_MODEL, _PLAIN))
    nmt("train", "plain.toml", "--run", RUNS[2])
    for side, language in enumerate(("en", "de")):
        (folder / f"hostile.{language}").write_text("".join(f"{pair[side]}\n" for pair in HOSTILE))
    return folder


def runs_of(tiny: Path) -> Path:
    """A folder as that of the fixture `tiny_run`, with RUNS and the test set `hostile`; made once. Only
    translations may be added."""
    return _trained(tiny, tiny.with_name("reported"))
