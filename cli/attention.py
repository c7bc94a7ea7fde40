"""nmt attention: look at what a model looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.cli import output as out
from nmt.cli.outputs import check_new
from nmt.cli.usage import check_order
from nmt.errors import UserError, counted

if TYPE_CHECKING:
    from nmt.attention_maps import Pair
    from nmt.checkpoint import LoadedModel


def attention(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Sentences, one a line; - is stdin.")],
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="Their translations; the model's own without it.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            help="What to write: .html, a page of all layers and heads; .png, .svg or .pdf, a picture."
        ),
    ] = Path("attention.html"),
    line: Annotated[
        int | None, typer.Option(min=1, help="Only this line; of a picture the first without it.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--type", help="encoder, decoder or cross (over the source, which is the default)."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Of the picture, or seen first: a number, or mean.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Of the picture, or seen first: a number, or mean.")
    ] = None,
    merge_words: Annotated[
        bool, typer.Option("--merge-words", help="Words in place of subwords; the page can do both.")
    ] = False,
    max_sentences: Annotated[int, typer.Option(min=1, help="The most sentences of a page.")] = 100,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """The attention of every layer and head: a page to look at with a browser, or one picture."""
    from nmt.heatmap import FORMATS

    if output.suffix not in (".html", *FORMATS):
        raise UserError(f"--output {output}: the format is not known; use .html, .png, .svg or .pdf")
    check_order("attention", model, source)
    view = _View(kind, layer, head)
    page = output.suffix == ".html"
    text = Text(source, target, line if page else line or 1, max_sentences)

    from nmt.checkpoint import load_model
    from nmt.device import choose_device
    from nmt.files import write_file

    check_new("--output", output, text.files)
    loaded = load_model(model, choose_device(device))
    pairs = text.read(loaded).pairs(loaded)
    view.check(loaded, pairs)
    content = (
        view.page(model, loaded, pairs, merge_words)
        if page
        else view.picture(loaded, pairs[0], merge_words, output.suffix)
    )
    write_file(output, content)
    about = f"{counted(len(pairs), 'sentence')}, {len(content) / 1e6:.1f} MB"
    out.note(f"{output}: {about if page else f'line {pairs[0].line}, {view.name}'}")


@dataclass(frozen=True)
class Text:
    """The lines whose attention is looked at, as `nmt attention` and `nmt heads` read them.

    Raises:
        UserError: a file is empty, they have not the same number of lines, or not that line.
    """

    source: str
    target: str | None
    line: int | None  # only this one
    most: int  # sentences

    def __post_init__(self) -> None:
        if self.source == self.target == "-":
            raise UserError("SOURCE and TARGET cannot both be standard input; give a file for one of them")

    @property
    def files(self) -> list[str]:
        return [self.source, *([] if self.target is None else [self.target])]

    def read(self, loaded: LoadedModel) -> Lines:
        """The lines; UserError where the model has no attention, too."""
        from nmt.data.corpus import display_name, read_lines, unequal_counts
        from nmt.forced import require_attention

        require_attention(loaded)
        name = display_name(self.source)
        sources = list(read_lines(self.source))
        targets = None if self.target is None else list(read_lines(self.target))
        if targets is not None and self.target is not None and len(sources) != len(targets):
            raise unequal_counts(self.source, len(sources), self.target, len(targets))
        filled = [number for number, text in enumerate(sources, start=1) if text.strip()]
        if not filled:
            raise UserError("holds no sentence; give a file with text", file=name)
        if self.line is None:
            chosen = filled[: self.most]
            if len(chosen) < len(filled):
                out.note(
                    f"the first {len(chosen):,} of {len(filled):,} sentences; raise --max-sentences for more"
                )
        elif self.line > len(sources):
            raise UserError(f"has no line {self.line}; choose another --line", file=name)
        elif self.line not in filled:
            raise UserError("is blank; choose another --line", file=name, line=self.line)
        else:
            chosen = [self.line]
        part = slice(chosen[0] - 1, chosen[-1])
        return Lines(name, len(sources), chosen[0], sources[part], None if targets is None else targets[part])


@dataclass(frozen=True)
class Lines:
    """Those that were chosen, blank ones among them."""

    name: str  # of the file
    total: int  # lines of the file
    first: int  # the number of the first that is chosen
    sources: list[str]
    targets: list[str] | None

    def pairs(self, loaded: LoadedModel) -> list[Pair]:
        """As the model reads them. What is too long is said and left out; UserError where nothing is left."""
        from nmt.attention_maps import make_pairs

        pairs, too_long = make_pairs(loaded, self.sources, self.targets, self.first)
        left_out = out.Repeated(self.name)
        for number in too_long:
            left_out.warn(number, "the pair is too long for the model; left out")
        left_out.end()
        if not pairs:
            raise UserError("every sentence is too long for the model; give shorter ones", file=self.name)
        return pairs


class _View:
    """Which attention is drawn, or seen first.

    Raises:
        UserError: the options do not go together.
    """

    def __init__(self, kind: str | None, layer: str | None, head: str | None):
        from nmt.attention_maps import KINDS

        if kind is not None and kind not in KINDS:
            raise UserError(f"--type {kind} is not known; use encoder, decoder or cross")
        self.kind = kind or "cross"
        self.layer, self.head = _number("--layer", layer), _number("--head", head)
        if self.head is not None and self.layer is None:
            raise UserError(f"--head {head} needs --layer: heads of different layers are strangers")

    @property
    def name(self) -> str:
        from nmt.alignment import View
        from nmt.attention_maps import TITLES

        return f"{TITLES[self.kind]}, {View(self.layer, self.head)}"

    def check(self, loaded: LoadedModel, pairs: list[Pair]) -> None:
        """UserError where the model has no such attention."""
        from nmt.alignment import View
        from nmt.attention_maps import TITLES, attention_maps

        shortest = min(pairs, key=lambda pair: len(pair.source_ids) + len(pair.target_ids))
        _, maps = next(attention_maps(loaded, [shortest]))
        if self.kind not in maps:
            raise UserError(
                f'model.architecture = "{loaded.config.model.architecture}" has no {TITLES[self.kind]}; '
                f"use --type {' or '.join(maps)}",
                file=loaded.folder,
            )
        View(self.layer, self.head).of(maps[self.kind])

    def page(self, model: Path, loaded: LoadedModel, pairs: list[Pair], words: bool) -> str:
        from nmt.attention_page import attention_page

        done = attention_page(
            loaded,
            pairs,
            title=f"Attention of {model}",
            kind=self.kind,
            layer=self.layer,
            head=self.head,
            words=words,
            tell=lambda n: out.status(f"{n:,} of {len(pairs):,} sentences"),
        )
        out.status("")
        return done

    def picture(self, loaded: LoadedModel, pair: Pair, words: bool, suffix: str) -> bytes:
        from nmt.alignment import View
        from nmt.attention_maps import attention_maps, merge_words, pieces_of, rows_and_columns, words_of
        from nmt.heatmap import draw, unwritable

        _, maps = next(attention_maps(loaded, [pair]))
        weights = View(self.layer, self.head).of(maps[self.kind])
        sides = rows_and_columns(self.kind)
        if words:
            rows, columns = (words_of(loaded, pair, side) for side in sides)
            weights = merge_words(weights, rows, columns)
            names = [[word.text for word in side] for side in (rows, columns)]
        else:
            names = [pieces_of(loaded, pair, side) for side in sides]
        missing = unwritable([*names[0], *names[1]])
        if missing:
            out.warn(
                f"no font here has {len(missing)} of the characters ({missing[:8]}), which are boxes in the "
                "picture; install one, such as Noto Sans CJK, or write .html"
            )
        return draw(
            weights, names[1], names[0], suffix, title=f"{loaded.config.model.architecture}: {self.name}"
        )


def _number(option: str, text: str | None) -> int | None:
    if text in (None, "mean"):
        return None
    if text is None or not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 9999:
        raise UserError(f"{option} {text} is not a number from 1, nor mean")
    return int(text)
