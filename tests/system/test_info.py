"""`nmt info`: what a model is, and by what its scores are known."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support import Nmt


def test_the_hash_is_that_of_its_scores(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    shown = nmt("info", "runs/tiny").stdout.decode()
    corpus = tiny_run / "corpus"
    source, reference = corpus / "validation.en", corpus / "validation.de"
    options = ("--source", source, "--reference", reference, "--json")
    scored = nmt("evaluate", "runs/tiny", *options).stdout.decode()
    described = json.loads(nmt("info", "runs/tiny", "--json").stdout)
    name = f"model:{described['model_sha256'][:12]}"
    assert f"signature of its scores ends in {name}\n" in shown
    assert name in scored


def test_validation_says_what_it_is_of(tiny_run: Path) -> None:
    shown = Nmt(tiny_run)("info", "runs/tiny").stdout.decode()
    (trained,) = (line for line in shown.split("\n") if line.startswith("trained: "))
    assert re.fullmatch(r"trained: step \d+, 0:\d\d min", trained)
    assert "validated on corpus/validation.en, corpus/validation.de: 20 lines\n" in shown
    (bleu,) = (line for line in shown.split("\n") if line.startswith("validation bleu: "))
    scored = Nmt(tiny_run)(
        *("evaluate", "--system", f"x={tiny_run}/corpus/validation.de"),
        *("--reference", "corpus/validation.de", "--no-confidence", "--json"),
    ).stdout
    assert bleu.endswith(f" (beam 1, {json.loads(scored)[0]['signature']})")
