"""One typed, frozen description of a run, read from TOML. The only home of defaults.

Every key a user can set stands in one of the classes below with its default and its meaning;
`nmt.config_file` reads and writes them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


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


Rate = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[int, Field(ge=1)]


class TransformerConfig(Section):
    """Vaswani et al. 2017, "Attention is all you need"."""

    architecture: Literal["transformer"] = "transformer"
    preset: Literal["tiny", "small", "base", "big"] | None = None
    encoder_layers: Size
    decoder_layers: Size
    width: Size
    feed_forward_width: Size
    heads: Size
    dropout: Rate  # on every sub-layer's output, before it is added to its input
    embedding_dropout: Rate | None = None  # None: as dropout
    attention_dropout: Rate = 0.0
    activation_dropout: Rate = 0.0
    norm: Literal["post", "pre"] = "post"
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_positions: Size = 1024  # size of the learned table
    tie_embeddings: Literal["all", "target", "none"] = "all"

    @model_validator(mode="after")
    def _shapes_fit(self) -> TransformerConfig:
        if self.width % self.heads:
            divisors = [h for h in range(1, self.width + 1) if self.width % h == 0]
            near = sorted(divisors, key=lambda h: abs(h - self.heads))[:3]
            raise ValueError(
                f"model.heads = {self.heads} does not divide model.width = {self.width}; "
                f"use {', '.join(map(str, sorted(near)))}"
            )
        if self.positions == "sinusoidal" and self.width % 2:
            raise ValueError(f"model.width = {self.width} is odd; sinusoidal positions need an even width")
        return self


class BahdanauConfig(Section):
    """Bahdanau, Cho and Bengio 2014: bidirectional GRU encoder, GRU decoder with additive attention."""

    architecture: Literal["bahdanau"]
    preset: Literal["tiny", "small", "base"] | None = None
    embedding_width: Size  # m in the paper
    hidden_width: Size  # n
    attention_width: Size  # n'
    maxout_width: Size  # l; the embedding width where embeddings are tied to the output
    dropout: Rate  # on embeddings and on the deep output
    tie_embeddings: Literal["all", "target", "none"] = "target"

    @model_validator(mode="after")
    def _shapes_fit(self) -> BahdanauConfig:
        if self.tie_embeddings != "none" and self.maxout_width != self.embedding_width:
            raise ValueError(
                f"model.maxout_width = {self.maxout_width} must equal model.embedding_width = "
                f"{self.embedding_width} while the output is tied to the embedding; "
                'set model.tie_embeddings = "none"'
            )
        return self


def _transformer(*, layers: int, **sizes: float) -> dict[str, Any]:
    return dict(encoder_layers=layers, decoder_layers=layers, **sizes)


def _bahdanau(*, embedding: int, hidden: int, maxout: int, dropout: float) -> dict[str, Any]:
    return dict(
        embedding_width=embedding,
        hidden_width=hidden,
        attention_width=hidden,
        maxout_width=maxout,
        dropout=dropout,
    )


# Sizes: `tiny` is Wu et al. 2021 for Multi30k, `small` the usual IWSLT'14 size, `base` and `big` are
# Vaswani et al. 2017, table 3. Bahdanau's `base` is Bahdanau et al. 2014, appendix A.2.3.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "transformer": {
        "tiny": _transformer(layers=4, width=128, feed_forward_width=256, heads=4, dropout=0.3),
        "small": _transformer(layers=6, width=512, feed_forward_width=1024, heads=4, dropout=0.3),
        "base": _transformer(layers=6, width=512, feed_forward_width=2048, heads=8, dropout=0.1),
        "big": _transformer(layers=6, width=1024, feed_forward_width=4096, heads=16, dropout=0.3),
    },
    "bahdanau": {
        "tiny": _bahdanau(embedding=128, hidden=256, maxout=128, dropout=0.2),
        "small": _bahdanau(embedding=256, hidden=512, maxout=256, dropout=0.2),
        "base": _bahdanau(embedding=620, hidden=1000, maxout=500, dropout=0.0) | {"tie_embeddings": "none"},
    },
}
DEFAULT_PRESET = "tiny"


def _architecture_of(value: Any) -> str:
    return str(value.get("architecture") if isinstance(value, dict) else value.architecture)


ModelConfig = Annotated[
    Annotated[TransformerConfig, Tag("transformer")] | Annotated[BahdanauConfig, Tag("bahdanau")],
    Discriminator(_architecture_of),
]
MODEL_SECTIONS: dict[str, type[Section]] = {"transformer": TransformerConfig, "bahdanau": BahdanauConfig}


class TrainingConfig(Section):
    """The loop. A step is one update of the parameters."""

    seed: int = Field(1, ge=0)
    max_steps: int = Field(10_000, ge=1)
    batch_tokens: int = Field(4096, ge=16)  # sentences x longest of either side, padding counted
    accumulation: int = Field(1, ge=1)  # batches a step
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(5e-3, gt=0)  # the peak
    schedule: Literal["inverse-sqrt", "linear", "cosine", "constant"] = "inverse-sqrt"
    warmup_steps: int = Field(2000, ge=0)
    betas: tuple[Rate, Rate] = (0.9, 0.98)
    epsilon: float = Field(1e-9, gt=0)
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


class SearchConfig(Section):
    """Beam search (Wu et al. 2016, sec. 7, for the length penalty)."""

    beam_size: int = Field(5, ge=1)
    length_penalty: float = Field(1.0, ge=0)  # 0: none; 1: close to the mean log-probability a token
    max_length_factor: float = Field(1.5, gt=0)  # longest translation: factor x source tokens + offset
    max_length_offset: int = Field(20, ge=1)
    max_source_tokens: int = Field(512, ge=8)  # longer lines are split, translated in parts, rejoined
    batch_tokens: int = Field(2048, ge=1)  # source tokens a batch, padding counted


class Config(Section):
    """A whole run."""

    data: DataConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _vocabularies_fit(self) -> Config:
        if self.model.tie_embeddings == "all" and not self.tokenizer.shared:
            raise ValueError(
                'model.tie_embeddings = "all" needs one vocabulary; '
                'set tokenizer.shared = true or model.tie_embeddings = "target"'
            )
        learned = isinstance(self.model, TransformerConfig) and self.model.positions == "learned"
        if learned and self.model.max_positions <= self.data.max_tokens:  # type: ignore[union-attr]
            raise ValueError(
                f"model.max_positions has no room for sentences of data.max_tokens = {self.data.max_tokens} "
                f"and their end; set it to {self.data.max_tokens + 1} or more"
            )
        return self


SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "training": TrainingConfig,
    "search": SearchConfig,
}
