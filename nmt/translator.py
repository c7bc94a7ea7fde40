"""Text in, text out: one translation a line, in order, whatever the lines hold.

B sentences, S source length, K hypotheses, D width, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from nmt.beam import Beam, beam_search
from nmt.budget import Searching
from nmt.checkpoint import LoadedModel
from nmt.config import SearchConfig
from nmt.constraints import Constraints, Wish, demands_of
from nmt.coverage import Coverage
from nmt.data.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from nmt.decoding import Decoder, Decoding
from nmt.elsewhere import Elsewhere, SearchEngine
from nmt.ensemble import Reader, tagging
from nmt.ensemble import readers as readers_of
from nmt.errors import DamagedModel, SentenceError, UserError
from nmt.long_sentences import split_long
from nmt.models.fast import check_precision, for_search
from nmt.models.seam import Model
from nmt.parallel import one_ahead
from nmt.patterns import Surfaces
from nmt.replay import Replay
from nmt.sampling import Draws, sample, seed_of
from nmt.search import Hypothesis, Sentence
from nmt.translations import Joining, Part, Translation

# Lines translated together: enough to fill batches of equal lengths, few enough to keep memory flat.
CHUNK_LINES = 2000


@dataclass(frozen=True)
class Task:
    """What is searched for at once: the translation of some tokens, and what is wanted of it.

    `line`: the text, where the tokens are a whole line. `place`: among what is searched for together.
    """

    ids: Sequence[int]
    wish: Wish | None = None
    line: str | None = None
    place: int = 0

    def __len__(self) -> int:
        return len(self.ids)


# From parts and the hypotheses of each to their texts.
Write = Callable[[Sequence[Part], Sequence[Sequence[Hypothesis]]], list[list[str]]]


@dataclass(frozen=True)
class Underway:
    """Lines whose translation has begun."""

    translator: Translator
    parts: Sequence[Part]
    parts_of: Sequence[range]  # of each line
    searching: Searching[Task, list[Hypothesis]] | Elsewhere

    def translations(self) -> list[Translation]:
        """Of each line.

        Raises:
            SentenceError: of one line there is none, or not memory enough for one; `place` is the line's.
        """
        try:
            found = self.searching.results(self.translator.look)
        except SentenceError as error:
            error.place = next(i for i, span in enumerate(self.parts_of) if error.place in span)
            raise
        texts = self.translator.write(self.parts, found)
        return [
            self.translator.joining.join(
                self.parts[span.start : span.stop],
                found[span.start : span.stop],
                texts[span.start : span.stop],
            )
            for span in self.parts_of
        ]

    def close(self) -> None:
        """End the search."""
        self.searching.close()


class Translator:
    """A model and how to search with it."""

    def __init__(
        self,
        model: Model | None,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        search: SearchConfig,
        *,
        n_best: int = 1,
        ensemble: Sequence[Model] = (),
        readers: Sequence[Reader] = (),
        write: Write | None = None,
        engine: SearchEngine | None = None,
        draws: Draws | None = None,
        utility: str | None = None,
        longest_seen: int | None = None,
        look: Callable[[], None] = lambda: None,
    ):
        """`model` is in evaluation mode, on its device.

        `ensemble` are further models with the same target vocabulary; the mean of their probabilities
        decides, or of the logarithms (`search.ensemble_by`). `readers` say how each model reads the source;
        without them all read `search.tag` and the ids.
        `write` makes text of hypotheses in place of the tokenizer.
        `engine` searches in place of models, `model` being None; it has `search` and `n_best` of its own.
        `draws`, where given, are the hypotheses in place of beam search's, all of them; but with a `utility`,
        "chrf" or "bleu", the n best are those with the least Bayes risk, each text once.
        `longest_seen`: tokens of the longest source of training; longer lines are translated sentence by
        sentence (`nmt.long_sentences`).
        `look` is called again and again while models search, and may raise.
        """
        self.look = look
        self.longest_seen = longest_seen
        self.draws = draws
        self.engine = engine
        self.models = [] if model is None else [model, *ensemble]
        self.readers = list(readers) or [tagging(source_tokenizer, search.tag)] * max(1, len(self.models))
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.search = search
        self.n_best = n_best
        self.joining = Joining(target_tokenizer, utility, n_best)
        self.write = write or self._write
        self.device = torch.device("cpu") if model is None else next(model.parameters()).device
        if search.coverage_penalty and not all(m.recorded_a_layer for m in self.models):
            raise UserError(
                "search.coverage_penalty needs attention over the source, which this model does not have; "
                "set it to 0"
            )
        sources = [m.most_source_tokens for m in self.models if m.most_source_tokens is not None]
        targets = [m.most_target_tokens for m in self.models if m.most_target_tokens is not None]
        self.most_source_tokens = min([search.max_source_tokens, *(n - 1 for n in sources)])
        self.most_target_tokens = min(targets, default=None)  # end of sentence included
        if engine is not None:
            self.most_source_tokens = engine.most_source_tokens
            self.most_target_tokens = engine.most_target_tokens
        self.most_source_tokens -= bool(search.tag)
        least = int(search.min_length_factor * 2) + search.min_length_offset
        if least > self.longest(1):
            raise UserError(
                f"the minimum length of {least} tokens with the end is above the {self.longest(1)} that the "
                "model has positions for; lower it"
            )

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        search: SearchConfig | None = None,
        *,
        n_best: int = 1,
        ensemble: Sequence[LoadedModel] = (),
        write: Write | None = None,
        engine: SearchEngine | None = None,
        draws: Draws | None = None,
        utility: str | None = None,
    ) -> Translator:
        """From model folders; UserError where an ensemble's models do not go together, or the beam is wider
        than the vocabulary."""
        search = search or loaded.config.search
        beam, vocabulary = search.beam_size, len(loaded.target_tokenizer)
        if beam > vocabulary:
            raise UserError(
                f"a beam of {beam:,} is more than the {vocabulary:,} tokens of the vocabulary; lower it"
            )
        return cls(
            loaded.model if engine is None else None,
            loaded.source_tokenizer,
            loaded.target_tokenizer,
            search,
            n_best=n_best,
            ensemble=[other.model for other in ensemble],
            readers=readers_of([loaded, *ensemble], search.tag, one_source=search.coverage_penalty > 0),
            write=write,
            engine=engine,
            draws=draws,
            utility=utility,
            longest_seen=loaded.manifest.get("longest_source"),
        )

    def translate(self, lines: Iterable[str]) -> Iterator[Translation]:
        """One translation for each line, in order. Lines are taken `CHUNK_LINES` at a time, once ahead."""
        iterator = iter(lines)
        chunks = iter(lambda: list(itertools.islice(iterator, CHUNK_LINES)), [])
        with closing(one_ahead(map(self.begin, chunks))) as works:
            for begun in works:
                yield from begun.translations()

    def translate_all(self, lines: Sequence[str], wishes: Sequence[Wish] | None = None) -> list[Translation]:
        """Translate lines together, in batches of similar length.

        `wishes`: what is wanted of each; of a blank line nothing. UserError where it cannot be had.
        """
        return self.begin(lines, wishes).translations()

    def begin(self, lines: Sequence[str], wishes: Sequence[Wish] | None = None) -> Underway:
        """As `translate_all`, to be ended by `Underway.translations`; searches on several cores begin."""
        parts: list[Part] = []
        wish_of: list[Wish | None] = []
        parts_of: list[range] = []
        encoded = self.source_tokenizer.encode_all(lines)
        for number, (line, ids) in enumerate(zip(lines, encoded, strict=True)):
            begin = len(parts)
            if line.strip() and ids:
                first = 0
                wish = wishes[number] if wishes else None
                for part in self.parts_of(ids, wish, line):
                    parts.append(Part(line, ids, first, part))
                    first += len(part)
            parts_of.append(range(begin, len(parts)))
            wish_of += wishes[number].of_parts(len(parts) - begin) if wishes else [None] * len(parts_of[-1])
        whole = [part.line if len(part.ids) == len(part.line_ids) else None for part in parts]
        return Underway(self, parts, parts_of, self._begin([part.ids for part in parts], wish_of, whole))

    def parts_of(
        self, ids: Sequence[int], wish: Wish | None = None, line: str | None = None
    ) -> list[list[int]]:
        """A line as it is translated: whole, or in parts that are. `line` is its text."""
        seen = None if wish is not None and wish.of_whole_line else self.longest_seen
        parts = split_long(ids, self.source_tokenizer, self.most_source_tokens, seen)
        whole = line if len(parts) == 1 else None
        return [readable for part in parts for readable in self._readable(part, whole)]

    def _readable(self, ids: list[int], line: str | None = None) -> list[list[int]]:
        """A part, cut until each model has positions for its own tokens of it."""
        if all(reader.fits(ids, line) for reader in self.readers):
            return [ids]
        smaller = split_long(ids, self.source_tokenizer, (len(ids) + 1) // 2)
        return [readable for part in smaller for readable in self._readable(part)]

    def translate_ids(
        self, sources: Sequence[Sequence[int]], wishes: Sequence[Wish | None] | None = None
    ) -> list[list[Hypothesis]]:
        """The n best hypotheses, or all samples, of each source (token ids without end of sentence).

        `wishes`: what is wanted of each; only beam search knows of them.
        """
        return self._begin(sources, wishes).results(self.look)

    def _begin(
        self,
        sources: Sequence[Sequence[int]],
        wishes: Sequence[Wish | None] | None,
        lines: Sequence[str | None] | None = None,
    ) -> Searching[Task, list[Hypothesis]] | Elsewhere:
        if self.engine is not None:
            return Elsewhere(self.engine, [self.readers[0](ids) for ids in sources])
        nothing = [None] * len(sources)
        tasks = [
            Task(*task)
            for task in zip(sources, wishes or nothing, lines or nothing, range(len(sources)), strict=True)
        ]
        self.prepare()  # once, here and not in each of the processes that search
        return Searching(
            self._search,
            tasks,
            batch_tokens=None if self.search.batch_tokens == "auto" else self.search.batch_tokens,
            device=self.device,
            model=self.models[0],
        )

    def longest(self, source_tokens: int) -> int:
        """The most tokens of the translation of so many source tokens, end of sentence included."""
        # Where the two do not fit, which they do for other sources, the minimum is asked for.
        most = max(self.search.most_tokens(source_tokens), self.search.least_tokens(source_tokens))
        return most if self.most_target_tokens is None else min(most, self.most_target_tokens)

    def shortest(self, source_tokens: int) -> int:
        """The fewest tokens of that translation, end of sentence included."""
        return max(1, min(self.search.least_tokens(source_tokens), self.longest(source_tokens)))

    def prepare(self) -> None:
        """Lay the models out for search, as the first search would.

        Raises:
            UserError: the device cannot search in this precision.
        """
        if self.engine is None:
            _ = self._decoder

    @cached_property
    def _decoder(self) -> Decoder:
        """The models as they are searched with."""
        search = self.search
        wrong = check_precision(search.precision, self.device)
        if wrong is not None:
            raise UserError(wrong)
        return Decoder(
            [for_search(m, search.precision, recording=search.coverage_penalty > 0) for m in self.models],
            self.readers,
            ensemble_by=search.ensemble_by,
            device=self.device,
        )

    @cached_property
    def _surfaces(self) -> Surfaces:
        return Surfaces.of(self.target_tokenizer)

    @torch.inference_mode()
    def _search(self, tasks: Sequence[Task], batch_tokens: int) -> Iterator[tuple[int, list[Hypothesis]]]:
        """The hypotheses of tasks, longest first, with the index of each, as they are found."""
        sources = [task.ids for task in tasks]
        forbidden = [PAD, BOS] if self.target_tokenizer.word_level else [PAD, BOS, UNK]
        room = [batch_tokens // (len(source) + 1) for source in sources]

        coverage = Coverage(self.search.coverage_penalty) if self.search.coverage_penalty else None
        decoder = self._decoder

        def start(indices: list[int]) -> Decoding:
            return decoder.start(
                [sources[i] for i in indices],
                [tasks[i].line for i in indices],
                attending=coverage is not None,
                tagged=bool(self.search.tag),
            )

        if self.draws is None:
            beam = Beam(
                self.search.beam_size,
                end=EOS,
                alpha=self.search.length_penalty,
                normalization=self.search.normalization,
                n_best=self.n_best,
                forbidden=forbidden,
                no_repeat_ngram=self.search.no_repeat_ngram,
                groups=self.search.beam_groups,
                diversity=self.search.diversity,
                guide=self._guide(tasks),
                bonus=None if coverage is None else coverage.bonus,
                device=self.device,
            )
            replay = None
            if self.device.type == "cuda" and beam.replayable:
                replay = Replay(decoder.step, beam)
            results = beam_search(
                decoder.step if coverage is None else partial(decoder.attending_step, coverage.see),
                start,
                [Sentence(self.longest(len(s)), self.shortest(len(s))) for s in sources],
                beam,
                begin=BOS,
                room=room,
                device=self.device,
                replay=replay,
            )
        else:
            seed = self.draws.seed
            results = sample(
                decoder.step,
                start,
                [
                    Sentence(self.longest(len(s)), self.shortest(len(s)), seed=seed_of(seed, s))
                    for s in sources
                ],
                self.draws,
                begin=BOS,
                end=EOS,
                forbidden=forbidden,
                alpha=self.search.length_penalty,
                normalization=self.search.normalization,
                room=room,
                device=self.device,
            )
        for index, found in results:
            if not found:
                raise self._nothing_found(tasks[index])
            yield index, found

    def _guide(self, tasks: Sequence[Task]) -> Constraints | None:
        if not any(task.wish for task in tasks):
            return None
        longest = [self.longest(len(task)) for task in tasks]
        wishes = [task.wish for task in tasks]
        return Constraints(demands_of(wishes, self.target_tokenizer, self._surfaces, longest), EOS)

    def _nothing_found(self, task: Task) -> UserError:
        if task.wish:
            return task.wish.refuse(
                "required" if task.wish.required else "forbidden",
                "no translation was found that has all that is wanted and nothing that is forbidden; ask for "
                "less, or raise --max-length or --beam-size",
            )
        if self.search.no_repeat_ngram and self.shortest(len(task)) > 1:
            return SentenceError(
                f"no translation of {self.shortest(len(task)) - 1} tokens was found without a repetition; "
                "lower the minimum length, or search.no_repeat_ngram",
                task.place,
            )
        return DamagedModel("the model gives no finite scores: its weights are damaged; train it again")

    def _write(self, parts: Sequence[Part], found: Sequence[Sequence[Hypothesis]]) -> list[list[str]]:
        return [[self.target_tokenizer.decode(hypothesis.tokens) for hypothesis in part] for part in found]
