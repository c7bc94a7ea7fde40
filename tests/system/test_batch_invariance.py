"""A translation does not depend on its batch: a real model, a real test set."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from support import Nmt

from nmt.data.corpus import read_lines

NEAR = 1e-4  # scores closer than this are a tie that rounding may decide


@pytest.mark.slow
def test_alone_in_batches_and_shuffled(multi30k: Path) -> None:
    model = ROOT / "runs/multi30k/averaged"
    if not model.exists():
        pytest.skip("needs the model of `make multi30k`")
    torch.set_num_threads(2)
    nmt = Nmt(ROOT)
    lines = list(read_lines(multi30k / "test_2016_flickr.en.gz"))

    def best(lines: list[str], *options: str) -> list[dict[str, object]]:
        done = nmt(
            "translate",
            model,
            "--format",
            "jsonl",
            *options,
            stdin="".join(f"{line}\n" for line in lines).encode(),
        )
        return [json.loads(line)["translations"][0] for line in done.lines]

    alone = best(lines, "--batch-tokens", "1")
    order = list(range(len(lines)))
    random.Random(1).shuffle(order)
    shuffled = best([lines[i] for i in order])
    others = {
        "batches of 500": best(lines, "--batch-tokens", "500"),
        "batches of 5,000": best(lines, "--batch-tokens", "5000"),
        "shuffled": [shuffled[order.index(i)] for i in range(len(lines))],
        "a long neighbour": best([*lines, "word " * 500])[:-1],
    }
    for name, translations in others.items():
        different = [
            i for i, (a, b) in enumerate(zip(alone, translations, strict=True)) if a["text"] != b["text"]
        ]
        assert len(different) <= 1, (name, different)
        for i in different:
            # Each batch found a best hypothesis; that the two are a tie is what excuses them.
            assert abs(float(str(alone[i]["score"])) - float(str(translations[i]["score"]))) < NEAR, (name, i)
