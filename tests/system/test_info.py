"""`nmt info`: what a model is, and by what its scores are known."""

from __future__ import annotations

import json
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
