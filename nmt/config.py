"""One typed, frozen description of a run, read from TOML. The only home of defaults, with `nmt.presets`.

Every key a user can set stands in one of the classes below, for [model] of `nmt.model_config` and for
[training] of `nmt.training_config`, with its default and its meaning; `nmt.config_file` reads and writes
them. The comment beside a key or directly above it is its documentation: `nmt config` prints it
(`nmt.config_reference`), so it stands alone.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from nmt.model_config import (
    Count,
    LuongConfig,
    ModelConfig,
    RecurrentConfig,
    Section,
    Size,
    TransformerConfig,
    near_divisors,
)
from nmt.training_config import TrainingConfig

TAG = re.compile(r"<[A-Za-z0-9_.:+-]+>")
_NO_TAGS = ("<pad>", "<unk>", "<s>", "</s>")  # are in every vocabulary
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class DataConfig(Section):
    """What to learn from. Paths are prefixes: PREFIX.en and PREFIX.de, plain or .gz, or one .tsv."""

    train: str | tuple[str, ...]  # a corpus, or several
    validation: str  # what training is steered by: checkpoints are chosen by their scores on it
    test: str | tuple[str, ...] = ()  # never trained on or chosen by; `nmt report` scores the first
    source_language: str  # suffix of the source files, and the language: en
    target_language: str  # suffix of the target files, and the language: de
    # Of several corpora, one entry each: how often a pair is seen in an epoch, 0 never, 2.5 in turns 2 and 3
    # times.
    weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    # In place of weights a temperature T: a corpus of n pairs counts as one of n^(1/T), the largest is seen
    # once; 1 leaves all as is, 0 is off.
    temperature: float = Field(0.0, ge=0)
    tags: tuple[str, ...] = ()  # one a corpus, such as "<back>", before its source sentences; "" is none
    # Word links of the training text, a file a corpus, "" for one without: lines of "0-0 1-2" as `nmt align`
    # writes them, plain or .gz; training.guided_alignment has attention learn them.
    alignments: str | tuple[str, ...] = ()
    alignment_words: Literal["blank", "punctuation"] = "blank"  # what ends a word in alignments
    # Processes that prepare and that sample subwords, 0: none beside this one. auto: one a core to prepare,
    # and to sample half as many, at most 4.
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = "auto"

    # What training pairs are dropped for; preparation prints how many, and why. Blank sides always are.

    max_words: int = Field(250, ge=1)  # drops training pairs with a side of more words, which blanks part
    max_characters: int = Field(5000, ge=1)  # drops training pairs with a side of more characters
    max_tokens: int = Field(512, ge=8)  # drops training pairs with a side of more tokens
    # Drops training pairs whose longer side has more than so many times the characters of the shorter.
    max_ratio: float = Field(9.0, gt=1)
    drop_copies: bool = False  # drops training pairs whose source is their target
    drop_duplicates: bool = False  # drops training pairs, both sides, that came before
    drop_overlap: bool = False  # drops training pairs whose source line is in validation or test too

    @model_validator(mode="after")
    def _makes_sense(self) -> DataConfig:
        if not self.train:
            raise ValueError("data.train is empty; name a corpus")
        if self.source_language == self.target_language:
            raise ValueError(
                f"data.source_language and data.target_language are both {self.source_language}; "
                "name the two suffixes"
            )
        lists = (("weights", self.weights), ("tags", self.tags), ("alignments", self.alignment_files))
        for key, values in lists:
            if values and len(values) != len(self.train_prefixes):
                raise ValueError(
                    f"data.{key} has {len(values)} entries for {len(self.train_prefixes)} corpora in "
                    "data.train; give one for each"
                )
        if self.weights and self.temperature:
            raise ValueError("data.weights and data.temperature are two ways to say one thing; remove one")
        if self.weights and not sum(self.weights):
            raise ValueError("data.weights sum to zero: no pair would ever be seen; give a corpus a weight")
        for tag in self.tags:
            if tag and (not TAG.fullmatch(tag) or tag in _NO_TAGS or _BYTE.fullmatch(tag)):
                raise ValueError(
                    f'data.tags = "{tag}" cannot be a tag; use letters and digits in angle brackets, such as '
                    '"<back>", and no token that every vocabulary has'
                )
        return self

    @property
    def train_prefixes(self) -> tuple[str, ...]:
        return (self.train,) if isinstance(self.train, str) else self.train

    @property
    def alignment_files(self) -> tuple[str, ...]:
        return (self.alignments,) if isinstance(self.alignments, str) else self.alignments

    @property
    def test_prefixes(self) -> tuple[str, ...]:
        return (self.test,) if isinstance(self.test, str) else self.test


class TokenizerConfig(Section):
    """SentencePiece. `sampling` segments training text anew each epoch (Kudo 2018; Provilkov 2020)."""

    type: Literal["bpe", "unigram", "word", "char"] = "bpe"  # bpe and unigram: subwords; word has an <unk>
    # Entries, of each vocabulary; small corpora may give fewer.
    vocabulary_size: int = Field(8000, ge=8, le=100_000_000)
    shared: bool = True  # one vocabulary for both languages
    character_coverage: float = Field(0.9999, ge=0.98, le=1)  # of characters; the rest is spelled in bytes
    sample_pairs: Count = 500_000  # it is trained on so many at most, spread over the corpora
    sampling: float = Field(0.0, ge=0, lt=1)  # BPE-dropout rate, or unigram smoothing alpha; 0 is off

    @model_validator(mode="after")
    def _sampling_needs_subwords(self) -> TokenizerConfig:
        if self.sampling and self.type not in ("bpe", "unigram"):
            raise ValueError(
                f"tokenizer.sampling needs subwords; set tokenizer.type to bpe or unigram (it is {self.type})"
            )
        return self


class SearchConfig(Section):
    """Beam search (Wu et al. 2016, sec. 7, for the length and coverage penalties).

    Lengths are in tokens and count the end of sentence.
    """

    beam_size: Size = 5  # hypotheses of a sentence that are followed; 1 is greedy
    length_penalty: float = Field(1.0, ge=0, le=100)  # 0: none; 1: close to the mean log-probability a token
    normalization: Literal["gnmt", "average"] = "gnmt"  # divide by ((5 + n) / 6)^penalty, or by n^penalty
    coverage_penalty: float = Field(0.0, ge=0, le=100)  # of source words left out; 0: none
    no_repeat_ngram: int = Field(0, ge=0, le=1_000_000)  # so many tokens come but once in a row; 0 is off
    beam_groups: Size = 1  # diverse beam search (Vijayakumar et al. 2018): divides beam_size
    diversity: float = Field(0.5, ge=0, le=1e6)  # what a token costs in a group that another has just taken
    # Shortest translation: factor x source tokens + offset.
    min_length_factor: float = Field(0.0, ge=0, le=1000)
    min_length_offset: int = Field(0, ge=0, le=1_000_000)  # tokens; see min_length_factor
    # Longest translation: factor x source tokens + offset, and no less than the shortest.
    max_length_factor: float = Field(1.5, ge=0, le=1000)
    max_length_offset: int = Field(20, ge=1, le=1_000_000)  # tokens; see max_length_factor
    # Longer lines are split, translated in parts, rejoined.
    max_source_tokens: int = Field(512, ge=8, le=1_000_000)
    # Source tokens a batch, padding counted. auto: what fits the caches of the cores, or a GPU's memory.
    batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    # Of matrix products; int8 is for CPUs, float16 for GPUs. Scoring and alignment have float32.
    precision: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    # Of several models: the mean of their probabilities, or of their log-probabilities.
    ensemble_by: Literal["probability", "log-probability"] = "probability"
    tag: str = ""  # one of data.tags, to put before every source sentence

    @property
    def tokens_together(self) -> int:
        """`batch_tokens`, and for what is not searched but read a middling number in place of "auto"."""
        return 2048 if self.batch_tokens == "auto" else self.batch_tokens

    @model_validator(mode="after")
    def _makes_sense(self) -> SearchConfig:
        if self.beam_size % self.beam_groups:
            raise ValueError(
                f"search.beam_groups = {self.beam_groups} does not divide search.beam_size = "
                f"{self.beam_size}; use {near_divisors(self.beam_size, self.beam_groups)}, or another beam"
            )
        # A minimum that short sources have no room for is theirs; one that the longest has none for is wrong.
        longest = self.max_source_tokens
        if self.least_tokens(longest) > self.most_tokens(longest):
            raise ValueError(
                f"the minimum length is above the maximum: {self.least_tokens(longest)} and "
                f"{self.most_tokens(longest)} with the end, for {longest} source tokens; lower the one or "
                "raise the other"
            )
        return self

    def least_tokens(self, source_tokens: int) -> int:
        """The fewest of a translation, its end included, of so many source tokens without theirs."""
        return int(self.min_length_factor * (source_tokens + 1)) + self.min_length_offset

    def most_tokens(self, source_tokens: int) -> int:
        """The most; the minimum goes first where it is larger."""
        return int(self.max_length_factor * (source_tokens + 1)) + self.max_length_offset


Quantization = Literal[
    "float32", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16"
]
QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)


class ExportConfig(Section):
    """What to write for another engine when training has finished. Nothing unless the section is there."""

    format: Literal["ctranslate2"] = "ctranslate2"  # the engine
    quantization: Quantization = "float32"  # how weights are kept; what computes with them follows from it


class Config(Section):
    """A whole run."""

    data: DataConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()
    export: ExportConfig | None = None

    @model_validator(mode="after")
    def _vocabularies_fit(self) -> Config:
        if self.model.tie_embeddings == "all" and not self.tokenizer.shared:
            raise ValueError(
                'model.tie_embeddings = "all" needs one vocabulary; '
                'set tokenizer.shared = true or model.tie_embeddings = "target"'
            )
        if self.search.coverage_penalty and isinstance(self.model, RecurrentConfig):
            raise ValueError(
                "search.coverage_penalty needs attention over the source, which model.architecture = "
                '"recurrent" does not have; set it to 0'
            )
        self._training_fits()
        table = isinstance(self.model, TransformerConfig) and self.model.positions == "learned"
        table = table or (isinstance(self.model, LuongConfig) and self.model.score == "location")
        if table and self.model.max_positions <= self.data.max_tokens:  # type: ignore[union-attr]
            raise ValueError(
                f"model.max_positions has no room for sentences of data.max_tokens = {self.data.max_tokens} "
                f"and their end; set it to {self.data.max_tokens + 1} or more"
            )
        if isinstance(self.model, LuongConfig) and self.model.window != "global":
            # The window around a middle word; one that holds every sentence is global attention.
            largest = self.data.max_tokens // 2
            if self.model.window_size > largest:
                raise ValueError(
                    f"model.window_size = {self.model.window_size} reaches past both ends of sentences of "
                    f"data.max_tokens = {self.data.max_tokens}; use {largest} or less, or "
                    'model.window = "global"'
                )
        return self

    @property
    def guided_view(self) -> tuple[int, int] | None:
        """Layer and head, from 1, whose attention learns alignments; None where none does."""
        if not self.training.guided_alignment:
            return None
        layers = self.model.decoder_layers if isinstance(self.model, TransformerConfig) else 1
        return self.training.guided_layer or max(1, layers - 1), self.training.guided_head or 1

    def _guided_fits(self) -> None:
        training, model = self.training, self.model
        if self.guided_view is None:
            if any(self.data.alignment_files):
                raise ValueError(
                    "data.alignments are given and training.guided_alignment, their weight in the loss, is "
                    "0; set it to 0.05, for example, or remove them"
                )
            for key in ("guided_layer", "guided_head"):
                if getattr(training, key) is not None:
                    raise ValueError(
                        f"training.{key} is of training.guided_alignment, which is 0; set that to a weight"
                    )
            return
        given = f"training.guided_alignment = {training.guided_alignment}"
        if not any(self.data.alignment_files):
            raise ValueError(
                f"{given} needs links of the training text; name them in data.alignments (`nmt align` "
                "writes them) or set it to 0"
            )
        if isinstance(model, RecurrentConfig):
            raise ValueError(
                f'{given} trains attention over the source, which model.architecture = "recurrent" does not '
                "have; set it to 0"
            )
        if self.tokenizer.sampling:
            raise ValueError(
                f"tokenizer.sampling = {self.tokenizer.sampling} segments words anew in each epoch, and "
                "links are prepared for one segmentation; set it or training.guided_alignment to 0"
            )
        is_transformer = isinstance(model, TransformerConfig)
        most = (model.decoder_layers, model.heads) if is_transformer else (1, 1)  # type: ignore[union-attr]
        for key, number, limit in zip(("layer", "head"), self.guided_view, most, strict=True):
            if number > limit:
                raise ValueError(
                    f"training.guided_{key} = {number}, and the decoder has {limit}; "
                    + ("leave it out" if limit == 1 else f"choose 1 to {limit}")
                )

    def _training_fits(self) -> None:
        self._guided_fits()
        if self.training.activation_checkpointing and not isinstance(self.model, TransformerConfig):
            raise ValueError(
                "training.activation_checkpointing computes layers of a transformer again, and "
                f'model.architecture = "{self.model.architecture}" has none; set it to false'
            )
        rates = [value for key, value in self.model.model_dump().items() if key.endswith("dropout")]
        if self.training.r_drop and not any(rates):
            raise ValueError(
                "training.r_drop compares two passes with different dropout, and the model has none; set "
                "model.dropout or training.r_drop = 0"
            )


SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "training": TrainingConfig,
    "search": SearchConfig,
}
OPTIONAL_SECTIONS: dict[str, type[Section]] = {"export": ExportConfig}
