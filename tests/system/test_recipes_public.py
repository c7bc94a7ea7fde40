"""The recipes on public corpora, every step of every system, on small mirrors of the same shape."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import mirrors
import pytest
from archives import pack

from nmt.data.unpack import read_members
from recipes import make, workshop

pytest.importorskip("sacremoses", reason="needs sacremoses: pip install -e '.[recipes]'")

STEPS = (
    "training.max_steps=4 training.validate_every=2 training.log_every=2 training.batch_tokens=256 "
    "training.threads=1 search.beam_size=2 search.max_length_offset=5 search.max_length_factor=0.5"
)
TRANSFORMER = (
    f"{STEPS} tokenizer.vocabulary_size=400 model.encoder_layers=1 model.decoder_layers=1 model.width=16 "
    "model.feed_forward_width=16 model.heads=2"
)
WORDS = f"{STEPS} model.embedding_width=16 model.hidden_width=16"
LUONG = f"{WORDS} model.layers=1 model.attentional_width=16"
# Of each recipe: its mirror, and which systems are trained together with which settings.
RECIPES: dict[str, tuple[Callable[[Path], None], list[tuple[str, dict[str, str]]]]] = {
    "iwslt14-de-en": (
        mirrors.iwslt14,
        # As many checkpoints as the protocol averages.
        [("", {"SET": TRANSFORMER + " training.max_steps=10 training.validate_every=1"})],
    ),
    "iwslt15-en-vi": (
        mirrors.iwslt15,
        [("luong", {"SET": LUONG}), ("transformer", {"SET": TRANSFORMER, "AVERAGE": "2"})],
    ),
    "wmt14-en-de": (
        lambda folder: mirrors.wmt14(folder, "de"),
        [
            ("", {"SET": TRANSFORMER, "AVERAGE": "2", "LAUNCH": "./launch"}),
            ("transformer-big", {"SET": TRANSFORMER, "AVERAGE": "2"}),
            ("luong2015", {"SET": LUONG}),
        ],
    ),
    "wmt14-en-fr": (
        lambda folder: mirrors.wmt14(folder, "fr"),
        [
            ("transformer-base transformer-big", {"SET": TRANSFORMER, "AVERAGE": "2"}),
            ("bahdanau2014", {"SET": f"{WORDS} model.attention_width=16 model.maxout_width=16"}),
            ("sutskever2014", {"SET": f"{WORDS} model.layers=1"}),
        ],
    ),
}
TEST_SETS = {"iwslt14-de-en": "test", "iwslt15-en-vi": "tst2013"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_step(recipe: str, tmp_path: Path) -> None:
    folder = workshop(tmp_path / "work")
    write_mirror, parts = RECIPES[recipe]
    write_mirror(tmp_path / "mirror")
    (folder / "launch").write_text('#!/bin/sh\necho "$@" >> launched\nexec "$@"\n')
    (folder / "launch").chmod(0o755)
    common = {"MIRROR": str(tmp_path / "mirror"), **mirrors.description(recipe, folder)}
    results = folder / "runs" / recipe / "results.json"
    systems: set[str] = set()
    for chosen, variables in parts:
        given = {**common, **variables, **({"SYSTEMS": chosen} if chosen else {})}
        first = make(folder, recipe, **given)
        assert first.returncode == 0, first.stderr
        written = results.read_bytes()
        systems |= set(chosen.split())
        again = make(folder, recipe, **given)
        assert again.returncode == 0, again.stderr
        assert again.stdout == results.with_suffix(".md").read_text()
        assert results.read_bytes() == written
    assert (folder / "launched").exists() == any("LAUNCH" in variables for _, variables in parts)

    rows = json.loads(results.read_text())
    assert {row["system"] for row in rows} >= systems
    for system in {row["system"] for row in rows}:
        found = {row["metric"]: row for row in rows if row["system"] == system}
        assert {"BLEU", "chrF2", "TER", "tokenised BLEU"} <= set(found), system
        assert {row["test_set"] for row in found.values()} == {TEST_SETS.get(recipe, "newstest2014")}
        assert "tok:13a" in found["BLEU"]["signature"]
        assert "tok:none" in found["tokenised BLEU"]["signature"]
        assert ("+ATAT" in found["tokenised BLEU"]["signature"]) == (recipe == "wmt14-en-de")
        assert found["BLEU"]["parameters"] == found["tokenised BLEU"]["parameters"] > 0
        assert found["BLEU"]["lines"] == (25 if recipe == "iwslt14-de-en" else mirrors.TEST)
    if recipe == "iwslt14-de-en":
        text = folder / "runs" / recipe / "text"
        counts = {path.name: path.read_text().count("\n") for path in text.iterdir()}
        assert counts["train.de"] + counts["validation.de"] <= mirrors.TRAIN
        assert counts["validation.de"] == (counts["train.de"] + counts["validation.de"]) // 23 > 0
        assert all(path.read_text() == path.read_text().lower() for path in text.iterdir())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def without_a_segment(path: Path) -> None:
    members = {name: b"".join(iter(reader.read, b"")) for name, reader in read_members(path, _names(path))}
    last = next(reversed([name for name in members if "tst2012.de-en.en" in name]))
    members[last] = members[last].replace(b'<seg id="2">', b"").replace(b"</seg>", b"", 1)
    pack(path, members)


def _names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def one_line_less(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "name", "spoil", "message"),
    [
        ("iwslt14-de-en", "de-en.tgz", without_a_segment, "tst2012.de-en.en.xml"),
        ("iwslt15-en-vi", "tst2013.vi", one_line_less, "tst2013.vi has 11 lines and tst2013.en 12"),
        ("wmt14-en-de", "training-parallel-nc-v9.tgz", cut, "cannot be unpacked"),
        ("wmt14-en-fr", "training-giga-fren.tar", Path.unlink, "cannot be had from the mirror"),
    ],
)
def test_one_wrong_file(
    recipe: str, name: str, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = workshop(tmp_path / "work")
    RECIPES[recipe][0](tmp_path / "mirror")
    spoil(tmp_path / "mirror" / name)
    given = {"MIRROR": str(tmp_path / "mirror"), **mirrors.description(recipe, folder)}
    done = make(folder, recipe, **given)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("nmt: ")]
    assert message in line
    assert name in line
    assert "Traceback" not in done.stderr
    assert "Error 2" in done.stderr
    assert not (folder / "runs").exists()
