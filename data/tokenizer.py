"""SentencePiece: train, encode, decode, sample. Special ids live here and nowhere else.

Encoding loses nothing: ``decode(encode(line)) == line`` for every line, with byte fallback for
characters outside the vocabulary. Only the word type maps unknown words to <unk>.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import sentencepiece

from nmt.errors import UserError, counted

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIAL_IDS = frozenset((PAD, UNK, BOS, EOS))

SPACE = "\u2581"  # SentencePiece writes blanks as this character
LONGEST_LINE = 65_536  # bytes; the tokenizer is not trained on longer ones
_BYTES_AND_SPECIALS = 256 + len(SPECIAL_IDS)
_UNKNOWN_SURFACE = "<unk>"
_seed_lock = threading.Lock()
_SAMPLING_IS_SEEDED = tuple(map(int, sentencepiece.__version__.split(".")[:3])) < (0, 2, 2)


class VocabularySizeError(UserError):
    """The text allows no vocabulary of that size: `most` entries, or `least`."""

    def __init__(self, message: str, *, most: int | None = None, least: int = 0):
        super().__init__(message)
        self.most = most
        self.least = least


class Tokenizer:
    """A trained SentencePiece model."""

    def __init__(self, model: bytes):
        """`model` is the content of a SentencePiece model file.

        Raises:
            ValueError: it is not one, or its special ids are not ours.
        """
        self.model = model
        if not model:  # taken by SentencePiece for "load later"
            raise ValueError("not a SentencePiece model")
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("not a SentencePiece model") from error
        ids = (self._pieces.pad_id(), self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id())
        if ids != (PAD, UNK, BOS, EOS):
            raise ValueError(f"its ids of <pad>, <unk>, <s>, </s> are {ids}, not {(PAD, UNK, BOS, EOS)}")
        self.byte_fallback = self._pieces.piece_to_id("<0x00>") != UNK
        self._asked: dict[int, str] = {}  # pieces, which SentencePiece is slow to tell
        # SentencePiece would join neighbouring unknown words, so the word type looks words up one by one.
        self.word_level = not self.byte_fallback

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a model file; UserError if it is missing or not a SentencePiece model with our special ids."""
        try:
            return cls(path.read_bytes())
        except FileNotFoundError:
            raise UserError("no such tokenizer model", file=path) from None
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", file=path) from None
        except ValueError as error:
            raise UserError(f"{error}; train one with `nmt tokenizer train`", file=path) from None

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return int(self._pieces.get_piece_size())

    def encode(self, line: str) -> list[int]:
        """Token ids of a line, without beginning and end of sentence."""
        if self.word_level:
            return [self._pieces.piece_to_id(SPACE + word) for word in line.split(" ") if word]
        if SPACE in line:
            return self._encode_around_space_marks(line)
        ids: list[int] = self._pieces.encode(line)
        return ids

    def encode_all(self, lines: Sequence[str], *, threads: int = -1) -> list[list[int]]:
        """As `encode`, for many lines at once, on all cores unless told on how many."""
        if self.word_level:
            return [self.encode(line) for line in lines]
        encoded: list[list[int]] = self._pieces.encode(list(lines), num_threads=threads)
        for index, line in enumerate(lines):
            if SPACE in line:
                encoded[index] = self.encode(line)
        return encoded

    def sample_all(self, lines: Sequence[str], rate: float, seed: int) -> list[list[int]]:
        """A random segmentation of each line: BPE-dropout with that rate, or unigram with alpha = rate.

        The same lines, rate and seed give the same result, in any process. SentencePiece keeps one
        generator a thread and reads the seed when it makes it, hence the thread.

        Raises:
            UserError: this SentencePiece draws differently in every process (0.2.2 and later).
        """
        if not _SAMPLING_IS_SEEDED:
            raise UserError(
                f"tokenizer.sampling needs sentencepiece below 0.2.2: {sentencepiece.__version__} does not "
                "keep to the seed, and a run could not be continued; install sentencepiece==0.2.1"
            )

        def sample() -> list[list[int]]:
            return [
                self.encode(line)
                if SPACE in line
                # The char type has one segmentation, of which SentencePiece samples nothing.
                else self._pieces.encode(line, enable_sampling=True, alpha=rate, nbest_size=-1)
                or self.encode(line)
                for line in lines
            ]

        # The seed is global, and its largest value means "leave it".
        with _seed_lock, ThreadPoolExecutor(max_workers=1) as thread:
            sentencepiece.set_random_generator_seed(seed % (2**32 - 1))
            return thread.submit(sample).result()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids. Special ids but <unk>, and tags, are left out; <unk> is written as such."""
        ids = [int(i) for i in ids if i == UNK or i not in SPECIAL_IDS]
        if self.word_level:
            ids = [i for i in ids if not self._pieces.is_control(i)]
            words = [_UNKNOWN_SURFACE if i == UNK else self.piece(i).removeprefix(SPACE) for i in ids]
            return " ".join(words)
        text: str = self._pieces.decode(ids)
        return text

    def piece(self, token_id: int) -> str:
        """The piece of an id as SentencePiece writes it; a word begins with U+2581."""
        piece = self._asked.get(token_id)
        if piece is None:
            piece = self._asked[token_id] = str(self._pieces.id_to_piece(int(token_id)))
        return piece

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.piece(i) for i in ids]

    def id_of(self, piece: str) -> int:
        token_id: int = self._pieces.piece_to_id(piece)
        return token_id

    @cached_property
    def id_by_piece(self) -> dict[str, int]:
        """The ids of all pieces, which no two entries of a vocabulary share."""
        return {self.piece(token_id): token_id for token_id in range(len(self))}

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Pieces that no text becomes, but for the special ids: `train_tokenizer`'s."""
        ids = range(len(self))
        return tuple(self.piece(i) for i in ids if self._pieces.is_control(i) and i not in SPECIAL_IDS)

    def _encode_around_space_marks(self, line: str) -> list[int]:
        """Encode a line that contains U+2581, which SentencePiece would take for a blank.

        A character that neither the line nor the vocabulary contains stands in; the bytes it is
        spelled in are then replaced by those of U+2581.
        """
        stand_in = next(
            character
            for character in map(chr, range(0x10FFFF, 0x100000, -1))
            if character not in line and self._is_spelled_in_bytes(character)
        )
        ids: list[int] = self._pieces.encode(line.replace(SPACE, stand_in))
        old, new = self._byte_ids(stand_in), self._byte_ids(SPACE)
        result: list[int] = []
        position = 0
        while position < len(ids):
            if ids[position : position + len(old)] == old:
                result += new
                position += len(old)
            else:
                result.append(ids[position])
                position += 1
        return result

    def _is_spelled_in_bytes(self, character: str) -> bool:
        return self.id_of(character) == UNK and self._pieces.encode(character)[-4:] == self._byte_ids(
            character
        )

    def _byte_ids(self, character: str) -> list[int]:
        return [self.id_of(f"<0x{byte:02X}>") for byte in character.encode()]


def train_tokenizer(
    lines: Iterable[str],
    *,
    type: str,
    vocabulary_size: int,
    character_coverage: float = 0.9999,
    threads: int = 1,
    tags: Sequence[str] = (),
) -> Tokenizer:
    """Train on lines of text. Blanks are kept as they are, text is not normalised.

    Each of `tags`, such as ``<back>``, gets an id (`Tokenizer.id_of`) that no text is encoded to and that is
    decoded to nothing.

    The word and char types take the whole vocabulary of the corpus where it is smaller than
    `vocabulary_size`; for bpe and unigram that is an error.

    Raises:
        UserError: the corpus has no text, or allows no vocabulary of that size.
    """
    subwords = type in ("bpe", "unigram")
    reserved = _BYTES_AND_SPECIALS + len(tags)
    if type != "word" and vocabulary_size <= reserved:
        raise VocabularySizeError(
            f"tokenizer.vocabulary_size = {vocabulary_size} leaves no room beside 256 bytes and "
            f"{reserved - 256} special tokens; set it to {reserved + 100} or more",
            least=reserved + 100,
        )
    seen = 0
    failure: Exception | None = None

    def with_text() -> Iterable[str]:
        nonlocal seen, failure
        try:
            for line in lines:
                if line and not line.isspace():
                    seen += 1
                    yield line
        except Exception as error:  # SentencePiece would hide it
            failure = error

    writer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(with_text()),
            model_writer=writer,
            model_type=type,
            vocab_size=vocabulary_size,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            byte_fallback=type != "word",
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=subwords,
            max_sentence_length=LONGEST_LINE,
            num_threads=threads,
            unk_surface=_UNKNOWN_SURFACE,
            minloglevel=2,
            # Of SentencePiece's two kinds the one that text never becomes.
            **({"control_symbols": list(tags)} if tags else {}),
        )
    except RuntimeError as error:
        if failure is None:
            raise _training_error(str(error), vocabulary_size, seen) from None
    if failure is not None:
        raise failure
    return Tokenizer(writer.getvalue())


def _training_error(message: str, vocabulary_size: int, lines: int) -> UserError:
    if not lines:
        return UserError("the training text has no words; a tokenizer needs text")
    too_high = re.search(r"value <= (\d+)", message)
    if too_high:
        most = int(too_high.group(1))
        return VocabularySizeError(
            f"tokenizer.vocabulary_size = {vocabulary_size} is more than the corpus of "
            f"{counted(lines, 'line')} allows; set it to {most} or less",
            most=most,
        )
    too_small = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if too_small:
        least = int(too_small.group(1))
        return VocabularySizeError(
            f"tokenizer.vocabulary_size = {vocabulary_size} is less than the corpus needs; set it to "
            f"{least} or more, or lower tokenizer.character_coverage",
            least=least,
        )
    if "sentences_.empty()" in message:
        return UserError(
            f"each of {counted(lines, 'line')} has more than {LONGEST_LINE:,} bytes, which SentencePiece "
            "passes over; cut them"
        )
    return UserError(f"SentencePiece could not train the tokenizer: {message}")
