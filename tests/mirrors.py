"""Small mirrors of public corpora: the same files and members, with sentences of the offline corpus in them.

The German side stands in for any target language.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from archives import pack
from conftest import ROOT

from nmt.data.synthetic import generate

TRAIN, TEST = 300, 12


def description(name: str, folder: Path) -> dict[str, str]:
    """What tells a recipe not to expect the real files, where the registry has their checksums."""
    text = (ROOT / "data" / "corpora" / f"{name}.toml").read_text()
    small = re.sub(r"(?m)^(sha256|bytes) = .*\n", "", text)
    if small == text:
        return {}
    (folder / f"{name}.toml").write_text(small)
    return {"CORPUS": f"{name}.toml"}


def iwslt14(folder: Path) -> None:
    members = {}
    for side, language in enumerate(("de", "en")):
        lines = _side(TRAIN, 1 - side)
        talk = ["<url>http://example.org/1</url>", "<keywords>a, b</keywords>", "<talkid>1</talkid>"]
        talk += [f"<title>{lines[0]}</title>", f"<description>{lines[1]}</description>", *lines[2:]]
        members[f"de-en/train.tags.de-en.{language}"] = _text(talk)
    for number, stem in enumerate(
        ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
    ):
        for side, language in enumerate(("de", "en")):
            lines = _side(3 + number, 1 - side, seed=number)
            name = f"de-en/IWSLT14.{stem}.de-en.{language}.xml"
            members[name] = _text(['<?xml version="1.0" encoding="UTF-8"?>', *_segments(lines)])
    members["de-en/README"] = b"about\n"
    pack(folder / "de-en.tgz", members)


def iwslt15(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", TRAIN, 1), ("tst2012", TEST, 2), ("tst2013", TEST, 3)):
        for side, language in enumerate(("en", "vi")):
            lines = [re.sub(r"([.,?!])", r" \1", line) for line in _side(count, side, seed=seed)]
            (folder / f"{split}.{language}").write_bytes(
                _text([line.replace("'", "&apos;") for line in lines])
            )


def wmt14(folder: Path, other: str) -> None:
    """Of one pair, though the real archives hold several."""
    pair = f"{other}-en"

    def sides(name: Callable[[str], str], lines: int, seed: int) -> dict[str, bytes]:
        return {name(lang): _text(_side(lines, i, seed=seed)) for i, lang in enumerate(("en", other))}

    pack(
        folder / "training-parallel-europarl-v7.tgz",
        {"training/europarl-v7.cs-en.cs": b"x\n"}
        | sides(lambda lang: f"training/europarl-v7.{pair}.{lang}", TRAIN, 1),
    )
    pack(
        folder / "training-parallel-commoncrawl.tgz",
        sides(lambda lang: f"commoncrawl.{pair}.{lang}", TRAIN, 2),
    )
    pack(
        folder / "training-parallel-nc-v9.tgz",
        sides(lambda lang: f"training/news-commentary-v9.{pair}.{lang}", TRAIN, 3),
    )
    if other == "fr":
        pack(folder / "training-parallel-un.tgz", sides(lambda lang: f"un/undoc.2000.fr-en.{lang}", TRAIN, 4))
        giga = sides(lambda lang: f"giga-fren.release2.fixed.{lang}.gz", TRAIN, 5)
        pack(folder / "training-giga-fren.tar", {name: gzip.compress(text) for name, text in giga.items()})
    names = {"test.tgz": ("test/newstest2013-src.{}.sgm", "src", "src"), "test-full.tgz": ("", "src", "ref")}
    for number, (archive, (name, *kinds)) in enumerate(names.items()):
        members = {}
        for side, language in enumerate(("en", other)):
            kind = kinds[side]
            path = name.format(language) or f"test-full/newstest2014-{pair[:2]}en-{kind}.{language}.sgm"
            members[path] = _text(_segments(_side(TEST, side, seed=7 + number), kind))
        pack(folder / archive, members)


def _side(count: int, side: int, seed: int = 1) -> list[str]:
    """English, then German. Now and then a compound, for protocols that split them."""
    pairs = list(generate("train", count, seed=seed))
    lines = [(pair.source, pair.target)[side] for pair in pairs]
    return [f"{line} Well-known & so-called." if i % 5 == 0 else line for i, line in enumerate(lines)]


def _segments(lines: Sequence[str], kind: str = "src") -> list[str]:
    inner = [f'<seg id="{number}"> {escape(line)} </seg>' for number, line in enumerate(lines, start=1)]
    return [
        f'<{kind}set setid="t" srclang="any">',
        '<doc docid="1" sysid="ref">',
        "<p>",
        *inner,
        "</p>",
        "</doc>",
    ]


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
