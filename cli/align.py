"""nmt align: which source word each target word comes from."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmt.cli import output as out
from nmt.cli.outputs import packed
from nmt.cli.reading import Reading
from nmt.cli.usage import check_order
from nmt.errors import UserError, counted

if TYPE_CHECKING:
    from nmt.checkpoint import LoadedModel
    from nmt.gold import Agreement, Gold
    from nmt.text_alignment import Alignment, Symmetric


def align(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")
    ] = None,
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="Text, plain or .gz; - is standard input.")
    ] = None,
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="Its translation, line by line.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write here, .gz too, instead of to standard output.")
    ] = None,
    words: Annotated[
        str, typer.Option(metavar="blank|punctuation", help="What ends a word; punctuation: marks are words.")
    ] = "blank",
    gold: Annotated[Path | None, typer.Option(help="Right links, to measure the error rate AER.")] = None,
    gold_base: Annotated[int, typer.Option(min=0, max=1, help="Number of the first word in --gold.")] = 0,
    layer: Annotated[
        str | None, typer.Option(metavar="N|mean|best", help="Layer to read, from 1; the mean without it.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="N|mean", help="Head of --layer; the mean without it.")
    ] = None,
    shift: Annotated[
        bool | None,
        typer.Option(
            help="Read where a target word has been read, not where it is predicted; no without it."
        ),
    ] = None,
    best: Annotated[
        bool,
        typer.Option(
            "--best", help="The layer, head and shift that agree best with --gold; else with --reverse."
        ),
    ] = False,
    reverse: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="A model that translates back: links of both.")
    ] = None,
    reverse_layer: Annotated[
        str | None, typer.Option(metavar="N|mean|best", help="Layer of --reverse; as --layer without it.")
    ] = None,
    reverse_head: Annotated[
        str | None, typer.Option(metavar="N|mean", help="Head of --reverse; as --head without it.")
    ] = None,
    symmetrize: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="How two directions are made one: intersection, union, grow-diag, grow-diag-final, "
            "grow-diag-final-and (without it).",
        ),
    ] = None,
    forward: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Links there are, in place of MODEL and texts.")
    ] = None,
    backward: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Those of the other direction, source-target too.")
    ] = None,
    turn_backward: Annotated[
        bool, typer.Option("--turn-backward", help="Links of --backward are target-source.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Align the words of a translated text by attention: links "source-target" from 0, line by line."""
    if best and layer not in (None, "best"):
        raise UserError(f"--best chooses the layer; leave out --layer {layer}")
    layer = "best" if best else layer
    output = out.file_of(output)
    reading = Reading(words, gold, gold_base, layer, head, shift, reverse is not None)
    from nmt.symmetrize import DEFAULT, METHODS

    if symmetrize is not None and symmetrize not in METHODS:
        raise UserError(f"--symmetrize {symmetrize} is not known; use {', '.join(METHODS)}")
    if symmetrize is not None and reverse is None and backward is None:
        raise UserError("--symmetrize needs two directions; add --reverse MODEL, or --backward FILE")
    if reverse is None and (reverse_layer is not None or reverse_head is not None):
        raise UserError("--reverse-layer and --reverse-head are of the model of --reverse; add that")
    if turn_backward and backward is None:
        raise UserError("--turn-backward is about --backward; add that")
    method = symmetrize or DEFAULT
    if forward is not None or backward is not None:
        if forward is None:
            raise UserError("--backward needs the other direction; add --forward FILE")
        if model is not None or reverse is not None or layer is not None or shift is not None:
            raise UserError(
                "--forward takes the links of a file; leave out MODEL and what is about attention"
            )
        _align_files(forward, backward, turn_backward, method, gold, gold_base, output, json)
        return
    if model is None or source is None or target is None:
        raise UserError("give MODEL SOURCE TARGET, or links with --forward FILE")
    check_order("align", model, source)
    backward_reading = replace(
        reading,
        layer=layer if reverse_layer is None else reverse_layer,
        # Another layer's head is another head.
        head=head if reverse_head is None and reverse_layer is None else reverse_head,
        prefix="--" if reverse_layer is None and reverse_head is None else "--reverse-",
    )
    _align_texts(model, reverse, source, target, (reading, backward_reading), method, output, device, json)


def _align_texts(
    model: Path,
    reverse: Path | None,
    source: str,
    target: str,
    readings: tuple[Reading, Reading],
    method: str,
    output: Path | None,
    device: str,
    json: bool,
) -> None:
    from nmt.checkpoint import load_model, model_hash
    from nmt.data.corpus import display_name, read_lines, unequal_counts
    from nmt.device import choose_device
    from nmt.forced import require_attention

    reading, backward_reading = readings
    if source == target == "-":
        raise UserError("SOURCE and TARGET cannot both be standard input; give a file for one of them")
    sources, targets = list(read_lines(source)), list(read_lines(target))
    if len(sources) != len(targets):
        raise unequal_counts(source, len(sources), target, len(targets))
    right = reading.gold_of(sources, targets)
    if output is not None:
        out.check_output(output, source, target, *([] if reading.gold is None else [reading.gold]))
    chosen = choose_device(device)
    loaded = load_model(model, chosen)
    back = None if reverse is None else load_model(reverse, chosen)
    if back is not None:
        require_attention(back)
        ours, theirs = loaded.languages, back.languages
        if ours != theirs[::-1]:
            out.warn(
                f"{reverse} translates {' to '.join(theirs)}, which is not back from {' to '.join(ours)}; "
                "see that --reverse is the model you mean"
            )
    if back is None:
        both, forward = None, reading.align(loaded, sources, targets, right)
        found, too_long, agreement = forward.links, forward.too_long, forward.agreement
    else:
        both = _both_ways((loaded, back), readings, (sources, targets), method, right)
        forward = both.forward
        found, too_long, agreement = both.links, both.too_long, both.agreement
    unaligned = out.Repeated(display_name(source))
    for number in too_long:
        unaligned.warn(number + 1, "the pair is too long for the model; left unaligned")
    unaligned.end()
    about: dict[str, Any] = {"words": reading.words, "layer": forward.view.layer, "head": forward.view.head}
    about["shift"] = forward.view.shift
    hashes = [model_hash(one.manifest)[:12] for one in (loaded, back) if one is not None]
    about |= {"models": hashes, "gold": None if reading.gold is None else reading.gold.name}
    if both is not None:
        about |= _about_both(both, method)
    if forward.ranking and reading.best:
        about["views"] = [
            {"layer": view.layer, "head": view.head, "shift": view.shift, **_measures(of_view)}
            for view, of_view in forward.ranking
        ]
    _write(found, output, json, agreement, about)
    if agreement is None or json or reading.gold is None:
        return
    measured = f"{len(sources):,} lines of {reading.gold.name}"
    by = f"model {'+'.join(hashes)}"
    if reading.best:
        _note_ranking("", forward)
    if both is None:
        out.note(_aer(agreement, measured, f"{forward.view}; {by}"))
        return
    if backward_reading.best:
        _note_ranking("reverse: ", both.backward)
    for name, direction, hash_ in zip(("forward", "reverse"), (forward, both.backward), hashes, strict=True):
        assert direction.agreement is not None
        out.note(_aer(direction.agreement, measured, f"{name}: {direction.view}; model {hash_}"))
    for name, of_method in both.by_method.items():
        if name != method:
            out.note(_aer(of_method, measured, f"{name}; {by}"))
    out.note(_aer(agreement, measured, f"{method}; {by}"))


def _align_files(
    forward: Path,
    backward: Path | None,
    turn: bool,
    method: str,
    gold: Path | None,
    gold_base: int,
    output: Path | None,
    json: bool,
) -> None:
    from nmt.alignment import in_order
    from nmt.gold import agreement_of, read_links
    from nmt.symmetrize import METHODS

    files = [path for path in (forward, backward, gold) if path is not None]
    if output is not None:
        out.check_output(output, *files)
    found = [line.possible for line in read_links(forward)]

    def read_beside(path: Path, base: int = 0) -> list[Any]:
        lines = read_links(path, base=base)
        if len(lines) != len(found):
            raise UserError(
                f"has {counted(len(lines), 'line')} and {forward} has {len(found):,}; give links of one text",
                file=path,
            )
        return lines

    if backward is not None:
        other = read_beside(backward)
        sides = [(line.turned() if turn else line).possible for line in other]
        found = [frozenset(METHODS[method](ours, theirs)) for ours, theirs in zip(found, sides, strict=True)]
    agreement = None
    if gold is not None:
        right = read_beside(gold, gold_base)
        if not any(line.possible for line in right):
            raise UserError("has no links; give a gold alignment", file=gold)
        agreement = agreement_of(found, right)
    name = method if backward is not None else str(forward)
    about = {"symmetrize": name, "gold": None if gold is None else gold.name}
    _write([in_order(links) for links in found], output, json, agreement, about)
    if agreement is not None and gold is not None and not json:
        out.note(_aer(agreement, f"{len(found):,} lines of {gold.name}", name))


def _write(
    links: list[list[tuple[int, int]]],
    output: Path | None,
    json: bool,
    agreement: Agreement | None,
    about: dict[str, Any],
) -> None:
    from nmt.alignment import pharaoh
    from nmt.files import write_file

    lines = [pharaoh(found) for found in links]
    text = "".join(f"{line}\n" for line in lines)
    if output is not None:
        write_file(output, packed(output, text))
    if json:
        out.result_json({**_measures(agreement), "lines": len(lines), **about, "links": lines})
    elif output is None:
        sys.stdout.write(text)


def _both_ways(
    models: tuple[LoadedModel, LoadedModel],
    readings: tuple[Reading, Reading],
    texts: tuple[list[str], list[str]],
    method: str,
    gold: list[Gold] | None,
) -> Symmetric:
    from nmt.text_alignment import choose, choose_by_agreement, symmetric

    forward = readings[0].look(models[0], *texts)
    backward = readings[1].look(models[1], *reversed(texts))
    if gold is not None:
        turned = [line.turned() for line in gold]
        return symmetric(choose(forward, gold), choose(backward, turned), method, gold)
    if readings[0].best or readings[1].best:
        ours, theirs, agreement = choose_by_agreement(forward, backward)
        out.note(f"the directions agree most, F1 {agreement:.4f}: {ours.view}; reverse: {theirs.view}")
        return symmetric(ours, theirs, method, None)
    return symmetric(choose(forward, None), choose(backward, None), method, None)


def _about_both(both: Symmetric, method: str) -> dict[str, Any]:
    return {
        "symmetrize": method,
        "directions": {
            name: {
                "layer": found.view.layer,
                "head": found.view.head,
                "shift": found.view.shift,
                **_measures(found.agreement),
            }
            for name, found in (("forward", both.forward), ("reverse", both.backward))
        },
        "methods": {name: _measures(found) for name, found in both.by_method.items()},
    }


def _measures(agreement: Agreement | None) -> dict[str, float | None]:
    if agreement is None:
        return {"aer": None, "precision": None, "recall": None}
    return {
        "aer": round(agreement.aer, 4),
        "precision": round(agreement.precision, 4),
        "recall": round(agreement.recall, 4),
    }


def _aer(agreement: Agreement, measured: str, name: str) -> str:
    return (
        f"AER {agreement.aer:.4f} (precision {agreement.precision:.4f}, recall {agreement.recall:.4f}, "
        f"{measured}; {name})"
    )


def _note_ranking(name: str, found: Alignment) -> None:
    for view, agreement in found.ranking:
        out.note(f"{name}{view}: AER {agreement.aer:.4f}")
