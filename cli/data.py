"""nmt data: public corpora, the offline corpus and the corpus doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.cli import output as out
from nmt.errors import UserError, counted

if TYPE_CHECKING:
    from nmt.data.check import Report

app = typer.Typer(no_args_is_help=True, help="Find, fetch, check and write corpora.")


@app.command("list")
def list_corpora(json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False) -> None:
    """The public corpora that `nmt data get` knows."""
    from nmt.data.registry import load_corpora

    corpora = load_corpora()
    if json:
        from dataclasses import asdict

        out.result_json([asdict(corpus) for corpus in corpora])
        return
    rows = [[c.name, " ".join(c.languages), str(len(c.splits)), c.description] for c in corpora]
    out.result(out.table(["corpus", "languages", "splits", "what it is"], rows, left=4))


@app.command()
def get(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A name of `nmt data list`.")],
    output: Annotated[Path | None, typer.Option(help="Folder; corpora/CORPUS without it.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Only this one; may be given again.")] = None,
    mirror: Annotated[
        str | None, typer.Option(metavar="DIR_OR_URL", help="Take the files from here.")
    ] = None,
) -> None:
    """Download a corpus, or copy it from a mirror, and unpack it; every file is checked by its sha256."""
    from nmt.data.fetch import fetch
    from nmt.data.registry import load_corpus

    if output is not None:
        out.refuse_standard_output(output)
    folder = output or Path("corpora") / load_corpus(corpus).name
    last: dict[str, int] = {}

    def show(name: str, done: int, expected: int | None) -> None:
        # A line when a file begins on a pipe, a running count on a terminal.
        if out.is_terminal():
            total = f" of {expected:,}" if expected else ""
            out.status(f"{name}: {done:,}{total} bytes")
        elif name not in last:
            out.note(name)
        last[name] = done

    def tell(message: str) -> None:
        out.status("")
        out.note(message)

    files = fetch(corpus, folder, languages=language, mirror=mirror, progress=show, note=tell)
    out.status("")
    out.note(f"{folder}: {len(files)} files, all as they should be")


@app.command()
def check(
    prefix: Annotated[
        list[str] | None,
        typer.Argument(metavar="PREFIX", help="PREFIX.en and PREFIX.de, or one .tsv file."),
    ] = None,
    source_language: Annotated[str, typer.Option(help="Suffix of the source file.")] = "en",
    target_language: Annotated[str, typer.Option(help="Suffix of the target file.")] = "de",
    source: Annotated[Path | None, typer.Option(help="Source file, in place of PREFIX.")] = None,
    target: Annotated[Path | None, typer.Option(help="Target file, in place of PREFIX.")] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="PREFIX of a test set; looks for overlap. May be given again.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """The corpus doctor: what is wrong, where, and what preparation would drop, but for pairs of more than
    data.max_tokens tokens, which only a tokenizer can count. Exits 2 on errors."""
    from nmt.data.check import examine, examine_files
    from nmt.data.corpus import read_parallel
    from nmt.data.filter import HeldOut

    known = HeldOut()
    for other in held_out or []:
        known.add(other, read_parallel(other, source_language, target_language))
    if source is not None and target is not None and not prefix:
        report = examine_files(source, target, held_out=known)
    elif prefix and len(prefix) == 1 and source is None and target is None:
        report = examine(prefix[0], source_language, target_language, held_out=known)
    else:
        raise UserError("name one PREFIX, or both --source FILE and --target FILE")
    if json:
        out.result_json(report.to_json())
    else:
        _print(report)
    if report.errors:
        raise typer.Exit(2)


def _print(report: Report) -> None:
    for side, file, lines, words in (
        ("source", report.source, report.source_lines, report.source_words),
        ("target", report.target, report.target_lines, report.target_words),
    ):
        out.result(f"{side} {file}: {counted(lines, 'line')}, {counted(words, 'word')}")
    for severity, kind, count, places, advice in report.rows():
        out.result(f"{severity}: {count:,} {kind}; {advice}")
        out.result(f"    {places}")
    if report.dropped:
        rows = [[row.reason, f"{row.count:,}", f"{row.share:.2%}"] for row in report.dropped]
        out.result(out.table(["preparation drops", "pairs", "share"], rows))
    if report.errors:
        out.result("preparation would refuse these files")
    else:
        out.result(f"preparation keeps {report.pairs_kept:,} of {report.source_lines:,} pairs")


@app.command()
def synthesize(
    output: Annotated[Path, typer.Option(help="Folder to write into.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other sentences.")] = 1,
    train: Annotated[int, typer.Option(min=1, help="Pairs to train on.")] = 10_000,
    held_out: Annotated[int, typer.Option(min=1, help="Pairs of each of the other splits.")] = 500,
) -> None:
    """Write the offline corpus: English-German pairs from a grammar, with their word alignment."""
    from nmt.data.synthetic import SPLITS, write_corpus

    out.refuse_standard_output(output)
    sizes = {split: train if split == "train" else held_out for split in SPLITS}
    files = write_corpus(output, seed=seed, sizes=sizes)
    out.note(f"{output}: {len(files)} files, {sum(sizes.values()):,} pairs")
