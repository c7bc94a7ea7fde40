"""One typed, frozen description of a run, read from TOML. The only home of defaults, with `nmt.presets`.

Every key a user can set stands in one of the classes below, or for [model] of `nmt.model_config`, with its
default and its meaning;
`nmt.config_file` reads and writes them.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from nmt.model_config import (
    LuongConfig,
    ModelConfig,
    Rate,
    RecurrentConfig,
    Section,
    TransformerConfig,
    near_divisors,
)
from nmt.presets import TRAINING_PRESETS


class DataConfig(Section):
    """What to learn from. Paths are prefixes: PREFIX.en and PREFIX.de, plain or .gz, or one .tsv."""

    train: str | tuple[str, ...]
    validation: str
    test: str | tuple[str, ...] = ()
    source_language: str
    target_language: str
    # Training pairs that are dropped; preparation prints how many, and why. Blank sides always are.
    max_words: int = Field(250, ge=1)
    max_characters: int = Field(5000, ge=1)
    max_tokens: int = Field(512, ge=8)  # after tokenization
    max_ratio: float = Field(9.0, gt=1)  # characters of the longer side over characters of the shorter
    drop_copies: bool = False  # source equal to target
    drop_duplicates: bool = False
    drop_overlap: bool = False  # source line in validation or test

    @model_validator(mode="after")
    def _makes_sense(self) -> DataConfig:
        if not self.train:
            raise ValueError("data.train is empty; name a corpus")
        if self.source_language == self.target_language:
            raise ValueError(
                f"data.source_language and data.target_language are both {self.source_language}; "
                "name the two suffixes"
            )
        return self

    @property
    def train_prefixes(self) -> tuple[str, ...]:
        return (self.train,) if isinstance(self.train, str) else self.train

    @property
    def test_prefixes(self) -> tuple[str, ...]:
        return (self.test,) if isinstance(self.test, str) else self.test


class TokenizerConfig(Section):
    """SentencePiece. `sampling` segments training text anew each epoch (Kudo 2018; Provilkov 2020)."""

    type: Literal["bpe", "unigram", "word", "char"] = "bpe"
    vocabulary_size: int = Field(8000, ge=8)
    shared: bool = True  # one vocabulary for both languages
    character_coverage: float = Field(0.9999, ge=0.98, le=1)  # the rest is spelled in bytes
    sampling: float = Field(0.0, ge=0, lt=1)  # BPE-dropout rate, or unigram smoothing alpha; 0 is off

    @model_validator(mode="after")
    def _sampling_needs_subwords(self) -> TokenizerConfig:
        if self.sampling and self.type not in ("bpe", "unigram"):
            raise ValueError(
                f"tokenizer.sampling needs subwords; set tokenizer.type to bpe or unigram (it is {self.type})"
            )
        return self


class TrainingConfig(Section):
    """The loop. A step is one update of the parameters."""

    preset: Literal["sutskever2014", "bahdanau2014", "luong2015", "vaswani2017"] | None = None
    seed: int = Field(1, ge=0)
    max_steps: int = Field(10_000, ge=1)
    max_epochs: int = Field(0, ge=0)  # whichever comes first; 0 is off
    batch_tokens: int = Field(4096, ge=16)  # sentences x longest of either side, padding counted
    accumulation: int = Field(1, ge=1)  # batches a step
    optimizer: Literal["adam", "adamw", "adadelta", "sgd"] = "adam"
    learning_rate: float = Field(5e-3, gt=0)  # the peak; a factor of the noam schedule; see nmt.presets
    schedule: Literal["inverse-sqrt", "linear", "cosine", "constant", "noam", "halving"] = "inverse-sqrt"
    warmup_steps: int = Field(2000, ge=0)
    halve_after_epochs: float = Field(5.0, ge=0)  # of the halving schedule: whole rate so long,
    halve_every_epochs: float = Field(1.0, gt=0)  # then halved at once and at each further so many epochs
    betas: tuple[Rate, Rate] = (0.9, 0.98)  # of adam and adamw
    rho: Rate = 0.95  # of adadelta
    epsilon: float = Field(1e-9, gt=0)  # of adam, adamw and adadelta
    weight_decay: float = Field(0.0, ge=0)
    label_smoothing: Rate = 0.1
    clip_norm: float = Field(0.0, ge=0)  # 0 is off
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    threads: int = Field(0, ge=0)  # 0: one a core
    log_every: int = Field(50, ge=1)  # steps
    validate_every: int = Field(500, ge=1)  # steps; a checkpoint follows each validation
    keep_best: int = Field(1, ge=1)
    keep_last: int = Field(5, ge=1)
    metric: Literal["bleu", "loss", "perplexity"] = "bleu"  # names the best checkpoint
    patience: int = Field(0, ge=0)  # validations without a better `metric` before stopping; 0 is off
    validation_beam_size: int = Field(1, ge=1)  # 1 is greedy

    @model_validator(mode="after")
    def _preset_keeps_its_optimizer(self) -> TrainingConfig:
        if self.preset and self.optimizer != TRAINING_PRESETS[self.preset]["optimizer"]:
            raise ValueError(
                f"training.optimizer = {self.optimizer}: training.preset = {self.preset} has the rates of "
                f"{TRAINING_PRESETS[self.preset]['optimizer']}; remove one of the two"
            )
        return self


class SearchConfig(Section):
    """Beam search (Wu et al. 2016, sec. 7, for the length and coverage penalties).

    Lengths are in tokens and count the end of sentence.
    """

    beam_size: int = Field(5, ge=1)
    length_penalty: float = Field(1.0, ge=0)  # 0: none; 1: close to the mean log-probability a token
    normalization: Literal["gnmt", "average"] = "gnmt"  # divide by ((5 + n) / 6)^penalty, or by n^penalty
    coverage_penalty: float = Field(0.0, ge=0)  # of source words left out; 0: none
    no_repeat_ngram: int = Field(0, ge=0)  # so many tokens come but once in a row; 0 is off
    beam_groups: int = Field(1, ge=1)  # diverse beam search (Vijayakumar et al. 2018): divides beam_size
    diversity: float = Field(0.5, ge=0)  # what a token costs in a group that another has just taken
    min_length_factor: float = Field(0.0, ge=0)  # shortest translation: factor x source tokens + offset
    min_length_offset: int = Field(0, ge=0)
    max_length_factor: float = Field(1.5, ge=0)  # longest translation: factor x source tokens + offset
    max_length_offset: int = Field(20, ge=1)
    max_source_tokens: int = Field(512, ge=8)  # longer lines are split, translated in parts, rejoined
    # Source tokens a batch, padding counted. auto: what fits the caches of the cores, or a GPU's memory.
    batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    # Of matrix products; int8 is for CPUs, float16 for GPUs. Training, scoring and alignment have float32.
    precision: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    # Of several models: the mean of their probabilities, or of their log-probabilities.
    ensemble_by: Literal["probability", "log-probability"] = "probability"

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
        # Both are lines: right for the shortest and for the longest source is right for all.
        for tokens in (2, self.max_source_tokens + 1):
            least = int(self.min_length_factor * tokens) + self.min_length_offset
            most = int(self.max_length_factor * tokens) + self.max_length_offset
            if least > most:
                raise ValueError(
                    f"the minimum length is above the maximum: {least} and {most} tokens with the end, for "
                    f"{tokens - 1} source tokens; lower the one or raise the other"
                )
        return self


Quantization = Literal[
    "float32", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16"
]
QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)


class ExportConfig(Section):
    """What to write for another engine when training has finished. Nothing unless the section is there."""

    format: Literal["ctranslate2"] = "ctranslate2"
    quantization: Quantization = "float32"


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


SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "training": TrainingConfig,
    "search": SearchConfig,
}
OPTIONAL_SECTIONS: dict[str, type[Section]] = {"export": ExportConfig}
