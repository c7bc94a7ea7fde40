"""nmt translate: lines in, lines out."""

from __future__ import annotations

import gzip
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmt.cli import output as out
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.translator import Translation, Translator


def translate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Text, plain or .gz; standard input without it.")
    ] = "-",
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    beam_size: Annotated[int | None, typer.Option(min=1, help="1 is greedy.")] = None,
    length_penalty: Annotated[float | None, typer.Option(min=0.0, help="0 is none.")] = None,
    n_best: Annotated[int, typer.Option(min=1, help="Translations a line; needs --format jsonl.")] = 1,
    format: Annotated[str, typer.Option(metavar="text|jsonl", help="jsonl has scores and tokens.")] = "text",
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Source tokens a batch.")] = None,
    ensemble: Annotated[
        list[Path] | None, typer.Option(help="A further model, to average with; may be given again.")
    ] = None,
    replace_unknown: Annotated[
        bool, typer.Option("--replace-unknown", help="Translate or copy words outside the vocabulary.")
    ] = False,
    dictionary: Annotated[
        Path | None, typer.Option(help="Lines source<TAB>target, for --replace-unknown.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Translate text, line by line: as many lines out as in, in order. A line typed is a line answered."""
    if format not in ("text", "jsonl"):
        raise UserError(f"--format {format} is not known; use text or jsonl")
    if n_best > 1 and format == "text":
        raise UserError(f"--n-best {n_best} does not fit one line a line; add --format jsonl")
    if dictionary is not None and not replace_unknown:
        raise UserError("--dictionary goes with --replace-unknown; add that")
    lines = Lines(source)  # before the model: a missing file is told at once

    from nmt.checkpoint import load_model
    from nmt.device import choose_device
    from nmt.translator import Translator

    loaded = load_model(model, choose_device(device))
    write = None
    if replace_unknown:
        from nmt.unknown import UnknownWords, read_dictionary

        write = UnknownWords(loaded, None if dictionary is None else read_dictionary(dictionary))
    chosen = {"beam_size": beam_size, "length_penalty": length_penalty, "batch_tokens": batch_tokens}
    search = loaded.config.search.model_copy(update={k: v for k, v in chosen.items() if v is not None})
    if n_best > search.beam_size:
        raise UserError(f"--n-best {n_best} is more than the beam of {search.beam_size}; raise --beam-size")
    others = [load_model(path, choose_device(device)) for path in ensemble or []]
    translator = Translator.of(loaded, search, n_best=n_best, ensemble=others, write=write)
    if output is None:
        _run(translator, lines, sys.stdout.buffer, format)
        return
    out.check_output(output, source)
    target = output.resolve()  # a link stays a link
    if target.exists() and not target.is_file():  # a pipe or a device is written to, not replaced
        with target.open("wb") as stream:
            _run(translator, lines, stream, format)
        return
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            if output.suffix == ".gz":
                with gzip.GzipFile(target.name, "wb", fileobj=stream) as packed:
                    _run(translator, lines, packed, format)
            else:
                _run(translator, lines, stream, format)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        # What is translated so far stays, under the name the user knows it by.
        if partial.exists():
            partial.replace(target.with_name(f"{target.name}.unfinished"))
        raise
    partial.replace(target)


def _run(translator: Translator, lines: Lines, stream: Any, format: str) -> None:
    progress = Progress(lines.total) if out.is_terminal() and not lines.typed else None
    number = 0
    for chunk in lines.chunks():
        for line, translation in zip(chunk, translator.translate_all(chunk), strict=True):
            number += 1
            if translation.parts > 1:
                out.warn(
                    f"{lines.name}:{number}: longer than {translator.most_source_tokens} tokens; "
                    f"translated in {translation.parts} parts"
                )
            stream.write(_record(line, number, translation, format).encode() + b"\n")
        stream.flush()
        if progress:
            progress.show(number)
    if progress:
        progress.end(number)


def _record(line: str, number: int, translation: Translation, format: str) -> str:
    if format == "text":
        return translation.text
    return json.dumps(
        {
            "line": number,
            "source": line,
            "translations": [
                {
                    "text": candidate.text,
                    "score": candidate.score,
                    "log_probability": candidate.log_probability,
                    "tokens": candidate.tokens,
                }
                for candidate in translation.candidates
            ],
        },
        ensure_ascii=False,
    )


class Lines:
    """The input, in chunks of what is there: few lines when they are typed, many when they are at hand."""

    def __init__(self, source: str):
        from nmt.data.corpus import display_name, read_lines

        self.name = display_name(source)
        self.typed = source == "-" and sys.stdin is not None and sys.stdin.isatty()
        self.total: int | None = None
        # A missing or unreadable file is an error now, not after the model is loaded. A pipe is read once.
        if source != "-" and (Path(source).is_file() or not Path(source).exists()):
            from nmt.data.corpus import open_bytes

            with open_bytes(source) as stream:
                stream.read(1)
            if out.is_terminal():
                self.total = sum(1 for _ in read_lines(source))
        self._source = source

    def chunks(self) -> Iterator[list[str]]:
        """Waits for one line, then takes all that have arrived, up to a full chunk.

        Raises:
            UserError: a line is not UTF-8; the lines before it have been yielded.
        """
        from nmt.data.corpus import read_lines
        from nmt.translator import CHUNK_LINES

        arrived: queue.Queue[str | BaseException | None] = queue.Queue(maxsize=4 * CHUNK_LINES)

        def read() -> None:
            try:
                for line in read_lines(self._source):
                    arrived.put(line)
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)

        threading.Thread(target=read, daemon=True).start()
        # A file is read faster than it is translated: wait until a chunk is full or the file ends.
        patient = self._source != "-"
        end: BaseException | None = None
        ended = False
        while not ended:
            chunk: list[str] = []
            while len(chunk) < CHUNK_LINES:
                try:
                    item = arrived.get(block=patient or not chunk)
                except queue.Empty:
                    break
                if item is None or isinstance(item, BaseException):
                    ended, end = True, item
                    break
                chunk.append(item)
            if chunk:
                yield chunk
        if end is not None:
            raise end


class Progress:
    """One line on the terminal: lines done, speed, time left."""

    def __init__(self, total: int | None):
        self.total = total
        self.began = time.perf_counter()

    def show(self, done: int) -> None:
        seconds = time.perf_counter() - self.began
        text = f"{done:,} lines, {done / seconds:,.0f} a second"
        if self.total:
            left = (self.total - done) * seconds / done
            text = (
                f"{done:,} of {self.total:,} lines, {done / seconds:,.0f} a second, {out.duration(left)} left"
            )
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def end(self, done: int) -> None:
        seconds = time.perf_counter() - self.began
        sys.stderr.write(f"\r\x1b[K{done:,} lines in {out.duration(seconds)}\n")
