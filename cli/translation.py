"""What `nmt translate` is asked to do, and the doing of it: chunks of lines in, records out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.cli import lines as input_lines
from nmt.cli import output as out
from nmt.cli.drawing import Drawing
from nmt.cli.ensemble import load_ensemble
from nmt.cli.guiding import Guiding
from nmt.cli.score import JSONL
from nmt.cli.search_options import search_options
from nmt.errors import SentenceError, UserError

if TYPE_CHECKING:
    from nmt.checkpoint import LoadedModel
    from nmt.config import SearchConfig
    from nmt.ctranslate2_engine import Engine
    from nmt.partial import Chunk
    from nmt.translator import Underway

FORMATS = ("text", "jsonl")
ENGINES = ("nmt", "ctranslate2")


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
    tag: str | None = None
    batch_tokens: str | None = None  # a number, or "auto"
    max_source_tokens: int | None = None  # longer lines are translated sentence by sentence
    precision: str | None = None
    ensemble: tuple[Path, ...] = ()
    ensemble_by: str | None = None
    replace_unknown: bool = False
    dictionary: Path | None = None
    restart: bool = False
    device: str = "auto"
    engine: str = "nmt"
    drawing: Drawing = field(default_factory=Drawing)
    guiding: Guiding = field(default_factory=Guiding)

    def __post_init__(self) -> None:
        self.settings_of_search()
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
        if self.engine not in ENGINES:
            raise UserError(f"--engine {self.engine} is not known; use {' or '.join(ENGINES)}")
        if self.engine != "nmt":
            if self.ensemble:
                raise UserError(f"--engine {self.engine} translates with one model; leave --ensemble out")
            if self.device not in ("auto", "cpu"):
                raise UserError(
                    f"--engine {self.engine} is for the CPU, not --device {self.device}; leave one out"
                )
        self.drawing.check(beam_size=self.beam_size, n_best=self.n_best, engine=self.engine)
        self.guiding.check(drawn=self.drawing.drawn, engine=self.engine, replace_unknown=self.replace_unknown)

    def settings_of_search(self) -> dict[str, Any]:
        """Keys of the [search] section, and the values given, but those of `guiding`."""
        names = ("tag", "beam_size", "length_penalty", "batch_tokens", "precision", "max_source_tokens")
        given = {name: getattr(self, name) for name in (*names, "ensemble_by")}
        return search_options(given, ensemble=bool(self.ensemble))


@dataclass(frozen=True)
class _Begun:
    """A chunk whose translation has begun."""

    chunk: Chunk
    lines: Underway

    def close(self) -> None:
        self.lines.close()


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
        self._split = out.Repeated(name)
        engine = None
        if options.engine == "nmt":
            self._loaded = load_model(options.model, choose_device(device))
            self._search = self._settle(self._loaded.config.search)
        else:
            self._loaded, self._search, engine = self._load_engine()
        # What reads attention reads the source as search does.
        config = self._loaded.config
        read = config.search.model_copy(update={"tag": self._search.tag})
        self._loaded = replace(self._loaded, config=config.model_copy(update={"search": read}))
        write = None
        if options.replace_unknown:
            from nmt.unknown import UnknownWords, read_dictionary

            dictionary = None if options.dictionary is None else read_dictionary(options.dictionary)
            write = UnknownWords(self._loaded, dictionary)
        self._wishes = None
        if options.guiding.wishes:
            self._wishes = options.guiding.read(self._loaded.target_tokenizer)
            if options.guiding.constraints is not None and self._search.beam_groups > 1:
                raise UserError("--constraints does not go with beam groups; use --beam-groups 1")
        self._others = load_ensemble(options.ensemble, self._loaded, device)
        self._translator = Translator.of(
            self._loaded,
            self._search,
            n_best=options.n_best,
            ensemble=self._others,
            write=write,
            engine=engine,
            draws=options.drawing.draws(options.n_best),
            utility=options.drawing.utility_of_risk(),
        )
        self._translator.prepare()
        if engine is None and self._search.precision == "bfloat16" and self._translator.device.type == "cpu":
            from nmt.precision import slow_in_bfloat16

            if slow_in_bfloat16():
                out.warn("this processor has no instructions for bfloat16; float32 and int8 are faster")
        most, seen = self._translator.most_source_tokens, self._translator.longest_seen
        if options.max_source_tokens is not None:
            self._translator.longest_seen = seen = most
        by_training = seen is not None and seen < most
        self._usual = f"{seen} tokens, as the longest of training" if by_training else f"{most} tokens"
        self._records = Records(self._loaded, options.format == "jsonl", options.alignment, options.attention)

    def _settle(self, search: SearchConfig) -> SearchConfig:
        """The model's own settings with those of the command line."""
        from nmt.config_file import changed_search

        options = self.options
        given = {**options.settings_of_search(), **options.guiding.settings_of_search()}
        search = changed_search(search, given)
        if options.guiding.diversity and search.beam_groups == 1:
            raise UserError("--diversity is between groups of the beam; add --beam-groups, 2 or more")
        if options.n_best > search.beam_size and not options.drawing.drawn:
            raise UserError(
                f"--n-best {options.n_best} is more than the beam of {search.beam_size}; raise --beam-size"
            )
        if options.drawing.drawn:
            for key in ("coverage_penalty", "no_repeat_ngram"):
                if getattr(search, key):
                    out.warn(f"search.{key} of the model is for beam search: samples are drawn without it")
        return search

    def _load_engine(self) -> tuple[LoadedModel, SearchConfig, Engine]:
        """CTranslate2, of an export or of a model that is converted on the way."""
        import torch

        from nmt.checkpoint import CONFIG, find_model
        from nmt.config_file import load_config
        from nmt.ctranslate2_engine import is_export, load_engine

        options = self.options
        folder = find_model(options.model)
        for name in ("replace_unknown", "alignment", "attention"):
            if getattr(options, name) and is_export(folder):
                raise UserError(
                    f"is an export, which gives no attention for --{name.replace('_', '-')}; name its model",
                    file=options.model,
                )
        search = self._settle(load_config(folder / CONFIG).search)
        # An export has its precision; another one asked for by name is refused.
        chosen = options.precision if is_export(folder) else search.precision
        loaded, engine = load_engine(
            options.model,
            search.model_copy(
                update={"precision": "float32", "tag": ""}
            ),  # the tag is put before what it reads
            n_best=options.n_best,
            quantization=chosen,
            threads=torch.get_num_threads(),
        )
        return loaded, search, engine

    @property
    def most_lines(self) -> int:
        """To be translated together."""
        on_gpu = self._translator.device.type == "cuda"
        return input_lines.GPU_CHUNK_LINES if on_gpu else input_lines.CHUNK_LINES

    def tell(self, found: Callable[[], None]) -> None:
        """Have it called with each translation that is found, before `translate` returns."""
        self._translator.look = found

    def translate(
        self, chunks: Iterable[Chunk], at_hand: Callable[[], bool] = lambda: True
    ) -> Generator[tuple[Chunk, bytes], None, None]:
        """Chunks and their records; warns of lines that were split.

        The next chunk is begun before the records of one are given out, unless it is not `at_hand`.
        """
        from nmt.hypotheses import is_record
        from nmt.parallel import one_ahead

        def begin(chunk: Chunk) -> _Begun:
            if chunk[0] == 1 and (self._name.endswith(JSONL) or is_record(chunk[1][0])):
                out.warn(
                    f"{self._name}: looks like JSON lines, and each is translated as it is; if you mean the "
                    "text in them, take it out first, for example with `jq -r .source`"
                )
            wishes = None if self._wishes is None else self._wishes.of(chunk)
            return _Begun(chunk, self._translator.begin(chunk[1], wishes))

        try:
            with closing(one_ahead(map(begin, chunks), at_hand)) as works:
                for begun in works:
                    yield begun.chunk, self._written(begun)
        finally:
            self._split.end()

    def _written(self, begun: _Begun) -> bytes:
        first, lines = begun.chunk
        try:
            translations = begun.lines.translations()
        except SentenceError as error:
            raise UserError(error.message, file=self._name, line=first + error.place) from None
        for number, translation in enumerate(translations, start=first):
            if translation.parts > 1:
                parts = f"translated in {translation.parts} parts"
                self._split.warn(number, f"longer than {self._usual}; {parts}")
        return "".join(f"{record}\n" for record in self._records.write(first, lines, translations)).encode()

    def settings(self) -> dict[str, Any]:
        """All that decides the records but the input. How lines are batched, and where, does not."""
        from nmt import __version__
        from nmt.checkpoint import model_hash
        from nmt.data.corpus import sha256_of

        search = self._search.model_dump(mode="json", exclude={"batch_tokens"})
        options = {
            name: getattr(self.options, name) for name in ("format", "n_best", "alignment", "attention")
        }
        options |= self.options.drawing.settings(self.options.n_best) | self.options.guiding.settings()
        dictionary = self.options.dictionary
        return {
            "nmt": __version__,
            "model": model_hash(self._loaded.manifest),
            "ensemble": [model_hash(other.manifest) for other in self._others],
            "engine": self.options.engine,
            "export": self._loaded.manifest.get("export"),
            **{key.replace("_", " "): value for key, value in {**options, **search}.items()},
            "replacement of unknown words": self.options.replace_unknown,
            "dictionary": None if dictionary is None else sha256_of(dictionary),
            "longest seen": self._translator.longest_seen,
        }
