"""The `nmt` command. Heavy imports happen inside commands, so that `nmt --help` is quick."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from typing import Annotated

import typer

from nmt import __version__
from nmt.cli import (
    align,
    attention,
    average,
    config,
    data,
    evaluate,
    export,
    heads,
    info,
    init,
    report,
    score,
    tokenizer,
    train,
    translate,
)
from nmt.cli.streams import settle_streams
from nmt.cli.usage import usage_message
from nmt.errors import InterruptedRun, UserError

app = typer.Typer(
    name="nmt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train, run and measure neural machine translation models.",
    epilog="--debug anywhere shows the traceback of an error. Exit codes: 0 done; 2 input, configuration "
    "or data is wrong; 1 anything unexpected; 130 interrupted; 143 terminated after saving.",
)
app.command("init")(init.init)
app.command("config")(config.config)
app.command("train")(train.train)
app.command("translate")(translate.translate)
app.command("evaluate")(evaluate.evaluate)
app.command("score")(score.score)
app.command("info")(info.info)
app.command("average")(average.average)
app.command("export")(export.export)
app.command("align")(align.align)
app.command("attention")(attention.attention)
app.command("heads")(heads.heads)
app.command("report")(report.report)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        sys.stdout.write(f"nmt {__version__}\n")
        raise typer.Exit


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    """Entry point: run a command and turn what it raises into one line and an exit code."""
    # OpenMP threads that wait for each other spin by default: with another process on the same cores that
    # made training eight times slower. Read when torch is loaded, so it is set before.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    code = run(lambda: app(args=arguments, standalone_mode=False), debug=debug)
    if threading.active_count() > 1:
        # A thread still waits for standard input, and Python would wait for it, or crash.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(command: Callable[[], object], *, debug: bool) -> int:
    """The exit code of a command; its errors become one line on stderr."""
    try:
        settle_streams()
        result = command()
        sys.stdout.flush()
        if result == 130:  # what the command line library makes of Ctrl-C
            return _say("interrupted", 130, debug)
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # the command line library saw it first
            return _reader_left()
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return _say("interrupted", 130, debug)
    except InterruptedRun as stop:
        return _say(str(stop), stop.exit_code, debug)
    except UserError as error:
        return _say(str(error), 2, debug)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        if error.errno in _FULL:
            return _say(f"{place}{error.strerror}; make room, then run the same command again", 2, debug)
        if error.filename:
            return _say(f"{place}{error.strerror}; see that it can be read and written", 2, debug)
        return _say(error.strerror or str(error), 1, debug)
    except MemoryError:
        return _say("out of memory; lower training.batch_tokens or --batch-tokens", 1, debug)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error}\n")
            return 2
        if "out of memory" in str(error) or "can't allocate memory" in str(error):  # torch's own errors
            return _say("out of memory; lower training.batch_tokens or --batch-tokens", 1, debug)
        if hasattr(error, "format_message"):  # the command line itself is wrong
            return _say(usage_message(error), 2, debug)
        if type(error).__name__ == "Abort":
            return _say("interrupted", 130, debug)
        text = _one_line(f"{type(error).__name__}: {error}")
        return _say(f"unexpected error: {text}; run again with --debug for the traceback", 1, debug)


def _reader_left() -> int:
    """The reader, such as `head`, has had enough: that is no error."""
    # Python would complain when it closes a stdout that nobody reads.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return 0


def _say(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"nmt: {message}\n")
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
