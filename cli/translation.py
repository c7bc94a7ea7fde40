"""What `nmt translate` is asked to do, and the doing of it: chunks of lines in, records out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.cli import output as out
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.partial import Chunk

FORMATS = ("text", "jsonl")


@dataclass(frozen=True)
class Options:
    """Of the command line. None is the model's own setting.

    Raises:
        UserError: they do not go together.
    """

    model: Path
    source: str
    output: Path | None = None
    beam_size: int | None = None
    length_penalty: float | None = None
    n_best: int = 1
    format: str = "text"
    alignment: bool = False
    attention: bool = False
    batch_tokens: int | None = None
    ensemble: tuple[Path, ...] = ()
    replace_unknown: bool = False
    dictionary: Path | None = None
    restart: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"--format {self.format} is not known; use text or jsonl")
        if self.format == "text":
            if self.n_best > 1:
                raise UserError(f"--n-best {self.n_best} does not fit one line a line; add --format jsonl")
            for name in ("alignment", "attention"):
                if getattr(self, name):
                    raise UserError(f"--{name} does not fit a line of text; add --format jsonl")
        if self.dictionary is not None and not self.replace_unknown:
            raise UserError("--dictionary goes with --replace-unknown; add that")
        if self.restart and self.output is None:
            raise UserError("--restart begins an --output anew; add that")


class Translating:
    """A loaded model at work."""

    def __init__(self, options: Options, device: str, name: str):
        """`name` is that of the input, in warnings.

        Raises:
            UserError: a model or the device is not there, or the options do not fit the model.
        """
        from nmt.checkpoint import load_model
        from nmt.device import choose_device
        from nmt.records import Records
        from nmt.translator import Translator

        self.options = options
        self._name = name
        self._loaded = load_model(options.model, choose_device(device))
        write = None
        if options.replace_unknown:
            from nmt.unknown import UnknownWords, read_dictionary

            dictionary = None if options.dictionary is None else read_dictionary(options.dictionary)
            write = UnknownWords(self._loaded, dictionary)
        chosen = {name: getattr(options, name) for name in ("beam_size", "length_penalty", "batch_tokens")}
        given = {name: value for name, value in chosen.items() if value is not None}
        self._search = self._loaded.config.search.model_copy(update=given)
        if options.n_best > self._search.beam_size:
            raise UserError(
                f"--n-best {options.n_best} is more than the beam of {self._search.beam_size}; "
                "raise --beam-size"
            )
        self._others = [load_model(path, choose_device(device)) for path in options.ensemble]
        self._translator = Translator.of(
            self._loaded, self._search, n_best=options.n_best, ensemble=self._others, write=write
        )
        self._records = Records(self._loaded, options.format == "jsonl", options.alignment, options.attention)

    def translate(self, chunk: Chunk) -> bytes:
        """The records of a chunk; warns of lines that were split."""
        first, lines = chunk
        translations = self._translator.translate_all(lines)
        for number, translation in enumerate(translations, start=first):
            if translation.parts > 1:
                out.warn(
                    f"{self._name}:{number}: longer than {self._translator.most_source_tokens} tokens; "
                    f"translated in {translation.parts} parts"
                )
        return "".join(f"{record}\n" for record in self._records.write(first, lines, translations)).encode()

    def settings(self) -> dict[str, Any]:
        """All that decides the records but the input. How lines are batched, and where, does not."""
        from nmt import __version__
        from nmt.data.corpus import sha256_of

        search = self._search.model_dump(mode="json", exclude={"batch_tokens"})
        options = {
            name: getattr(self.options, name) for name in ("format", "n_best", "alignment", "attention")
        }
        dictionary = self.options.dictionary
        return {
            "nmt": __version__,
            "model": _sum_of(self._loaded.manifest),
            "ensemble": [_sum_of(other.manifest) for other in self._others],
            **{key.replace("_", " "): value for key, value in {**options, **search}.items()},
            "replacement of unknown words": self.options.replace_unknown,
            "dictionary": None if dictionary is None else sha256_of(dictionary),
        }


def _sum_of(manifest: dict[str, Any]) -> str:
    """One sum of a model's files, wherever it lies; what training goes on from is no part of the model."""
    import hashlib
    import json

    files = {name: value for name, value in manifest["files"].items() if name != "training_state.pt"}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
