"""The second pass of preparation: the pairs that are kept, as token ids on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nmt.data.blocks import Block, read_blocks
from nmt.data.links import FILES as LINK_FILES
from nmt.data.links import TokenLinks, parse_links
from nmt.data.pool import Pool
from nmt.data.scan import KEPT, MOST_PLACES, Scan
from nmt.data.tokenizer import Tokenizer
from nmt.data.unfinished import Growing
from nmt.data.words import LineEncoder

FILES = ("train.source.tokens", "train.source.offsets", "train.target.tokens", "train.target.offsets")


class Encoded(NamedTuple):
    """The pairs of a block: ids in a row, and how many each sentence has."""

    corpus: int
    lines: int
    source: bytes
    source_lengths: npt.NDArray[np.int64]
    target: bytes
    target_lengths: npt.NDArray[np.int64]
    too_long: list[int]  # lines of the block, from 0, that have too many tokens
    links: bytes  # source token, target token, ... of each pair in a row
    link_lengths: npt.NDArray[np.int64]  # numbers there, of each pair


class Encoder:
    """The task of a worker: the pairs of a block that are kept, as ids."""

    def __init__(
        self,
        source: Tokenizer,
        target: Tokenizer,
        *,
        by_words: bool,
        dtype: str,
        max_tokens: int,
        tags: Sequence[str],
        link_words: str = "blank",
    ):
        """
        Args:
            tags: pieces that are put before the source ids, one a corpus; "" is none.
            link_words: what ends a word in links, of blocks that have some.
        """
        self._models = source.model, target.model
        self._by_words = by_words
        self._dtype = np.dtype(dtype)
        self._max_tokens = max_tokens
        self._link_words = link_words
        self.link_dtype = np.dtype("uint16" if max_tokens <= 1 << 16 else "uint32")
        self._tags = [np.array([source.id_of(tag)], dtype).tobytes() if tag else b"" for tag in tags]

    @cached_property
    def _encoders(self) -> tuple[LineEncoder, LineEncoder]:
        source, target = (
            LineEncoder(Tokenizer(model), self._dtype.name, by_words=self._by_words) for model in self._models
        )
        return source, source if self._models[0] == self._models[1] else target

    @cached_property
    def _token_links(self) -> TokenLinks:
        return TokenLinks(Tokenizer(self._models[0]), Tokenizer(self._models[1]), self._link_words)

    def __call__(self, item: tuple[Block, npt.NDArray[np.uint8]]) -> Encoded:
        """A block and the verdicts on its pairs."""
        block, verdicts = item
        kept = np.flatnonzero(verdicts == KEPT)
        sources, targets = block.sides()
        if len(kept) < block.count:
            sources, targets = [sources[i] for i in kept], [targets[i] for i in kept]
        source, target = self._encoders[0].encode_all(sources), self._encoders[1].encode_all(targets)
        texts = source, target
        if tag := self._tags[block.corpus]:
            source = [tag + ids for ids in source]
        source_lengths, target_lengths = self._lengths(source), self._lengths(target)
        fits = np.maximum(source_lengths, target_lengths) <= self._max_tokens
        if not fits.all():
            source = [ids for ids, is_kept in zip(source, fits, strict=True) if is_kept]
            target = [ids for ids, is_kept in zip(target, fits, strict=True) if is_kept]
        links = self._links(block, kept[fits], [[side[i] for i in np.flatnonzero(fits)] for side in texts])
        return Encoded(
            block.corpus,
            block.count,
            b"".join(source),
            source_lengths[fits],
            b"".join(target),
            target_lengths[fits],
            kept[~fits].tolist(),
            np.array([number for one in links for number in one], self.link_dtype).tobytes(),
            np.array(list(map(len, links)), np.int64),
        )

    def _links(
        self, block: Block, rows: npt.NDArray[np.int64], encoded: Sequence[Sequence[bytes]]
    ) -> list[list[int]]:
        """Of each of these lines, whose ids stand in `encoded`, source before target."""
        if block.links is None:
            return [[] for _ in rows]
        lines, sides = block.link_lines(), block.sides()
        first = 1 if self._tags[block.corpus] else 0
        found = []
        for row, *pair in zip(rows.tolist(), *encoded, strict=True):
            source, target = sides[0][row], sides[1][row]
            source_ids, target_ids = (np.frombuffer(ids, self._dtype).tolist() for ids in pair)
            links = parse_links(lines[row], source, target, words=self._link_words)
            found.append(self._token_links(links, (source, target), (source_ids, target_ids), first))
        return found

    def _lengths(self, sentences: Sequence[bytes]) -> npt.NDArray[np.int64]:
        sizes = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
        return sizes // self._dtype.itemsize


@dataclass(frozen=True)
class EncodedCorpora:
    """What the second pass wrote."""

    pairs: tuple[int, ...]  # of each corpus
    source_tokens: int
    target_tokens: int
    too_long: int  # pairs left out for their tokens
    places: tuple[str, ...]  # of the first of these
    links: int  # of tokens


def encode_corpora(
    prefixes: Sequence[str],
    languages: tuple[str, str],
    found: Scan,
    encoder: Encoder,
    *,
    workers: int,
    links: Sequence[Path | None] = (),
) -> EncodedCorpora:
    """Write `FILES` into the folder of the scan; goes on where that was killed.

    Args:
        links: as `read_blocks` takes them; where given, `nmt.data.links.FILES` are written too.
    """
    with Growing(found.folder, "encoding", [*FILES, *(LINK_FILES if links else ())]) as growing:
        state: dict[str, Any] = growing.state or {
            "blocks": 0,
            "lines": 0,
            "pairs": [0] * len(prefixes),
            "source_tokens": 0,
            "target_tokens": 0,
            "too_long": 0,
            "places": [],
            "links": 0,
            "done": False,
        }
        if not state["blocks"]:
            growing.write(FILES[1], bytes(8))
            growing.write(FILES[3], bytes(8))
            if links:
                growing.write(LINK_FILES[1], bytes(8))
        if not state["done"]:
            blocks = read_blocks(prefixes, *languages, skip=state["blocks"], links=links)
            with Pool(encoder, workers) as pool:
                for block in pool.map(_with_verdicts(blocks, found, state["lines"])):
                    if links:
                        growing.write(LINK_FILES[0], block.links)
                        ends = 2 * state["links"] + np.cumsum(block.link_lengths)
                        growing.write(LINK_FILES[1], ends.tobytes())
                        state["links"] += int(block.link_lengths.sum()) // 2
                    _write(growing, state, block, found)
            growing.done({**state, "done": True}, last=True)
    return EncodedCorpora(
        tuple(state["pairs"]),
        state["source_tokens"],
        state["target_tokens"],
        state["too_long"],
        tuple(state["places"]),
        state.get("links", 0),  # a preparation that an earlier version began has none
    )


def _with_verdicts(
    blocks: Iterator[Block], found: Scan, first: int
) -> Iterator[tuple[Block, npt.NDArray[np.uint8]]]:
    for block in blocks:
        yield block, found.verdicts(first, block.count)
        first += block.count


def _write(growing: Growing, state: dict[str, Any], block: Encoded, found: Scan) -> None:
    growing.write(FILES[0], block.source)
    growing.write(FILES[1], (state["source_tokens"] + np.cumsum(block.source_lengths)).tobytes())
    growing.write(FILES[2], block.target)
    growing.write(FILES[3], (state["target_tokens"] + np.cumsum(block.target_lengths)).tobytes())
    room = MOST_PLACES - len(state["places"])
    state["places"] += [found.place(state["lines"] + line) for line in block.too_long[:room]]
    state["too_long"] += len(block.too_long)
    state["blocks"] += 1
    state["lines"] += block.lines
    state["pairs"][block.corpus] += len(block.source_lengths)
    state["source_tokens"] += int(block.source_lengths.sum())
    state["target_tokens"] += int(block.target_lengths.sum())
    growing.done(state)
