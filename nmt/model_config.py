"""The keys of [model], an architecture after the other: part of `nmt.config`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """true and false are no numbers, which pydantic takes them for."""
        kind = cls.model_fields[info.field_name or ""].annotation
        one_is = any(isinstance(one, bool) for one in (value if isinstance(value, list) else [value]))
        if one_is and kind is not bool and bool not in get_args(kind):
            raise PydanticCustomError("no_number", "Input should be other than true or false")
        return value


Rate = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=10**12)]  # of what costs nothing itself: steps, lines
CountOrNone = Annotated[int, Field(ge=0, le=10**12)]


class TransformerConfig(Section):
    """Vaswani et al. 2017, "Attention is all you need"."""

    architecture: Literal["transformer"] = "transformer"  # which model this is; the other keys follow from it
    preset: Literal["tiny", "small", "base", "big", "vaswani2017"] | None = (
        None  # sizes by name: defaults of other keys
    )
    encoder_layers: Size  # on the source side
    decoder_layers: Size  # on the target side
    width: Size  # of embeddings and of what goes from layer to layer
    feed_forward_width: Size  # inner; swiglu has three matrices of this width, the others two
    decoder_feed_forward_width: Size | None = None  # of the decoder; if not set, as feed_forward_width
    heads: Size  # of attention, in each layer; divides width
    dropout: Rate  # on every sub-layer's output, before it is added to its input
    embedding_dropout: Rate | None = None  # on embeddings; if not set, as dropout
    attention_dropout: Rate = 0.0  # on the weights of attention
    activation_dropout: Rate = 0.0  # inside the feed-forward layers
    norm: Literal["post", "pre"] = "post"  # after each sub-layer, or before it (Xiong et al. 2020)
    norm_type: Literal["layernorm", "rmsnorm"] = "layernorm"  # rmsnorm: Zhang and Sennrich 2019
    # Of the feed-forward layers. gelu: Hendrycks and Gimpel 2016. swiglu: Shazeer 2020.
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    # How the order of tokens is told. rotary: Su et al. 2021. relative: Shaw, Uszkoreit and Vaswani 2018.
    positions: Literal["sinusoidal", "learned", "rotary", "relative"] = "sinusoidal"
    max_positions: Size = 1024  # size of the table of learned positions; more than data.max_tokens
    relative_distance: Size = 16  # k of relative positions: longer distances count as k
    # One matrix for source, target and output, for target and output, or for none; with tokenizer.shared =
    # false the default is "target".
    tie_embeddings: Literal["all", "target", "none"] = "all"

    @model_validator(mode="after")
    def _shapes_fit(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(
                f"model.heads = {self.heads} does not divide model.width = {self.width}; "
                f"use {near_divisors(self.width, self.heads)}"
            )
        if self.positions == "sinusoidal" and self.width % 2:
            raise ValueError(f"model.width = {self.width} is odd; sinusoidal positions need an even width")
        if self.positions == "rotary" and self.width // self.heads % 2:
            advice = (
                f"an even model.width, {2 * self.heads} for example"
                if self.width % 2
                else f"model.heads = {near_divisors(self.width // 2, self.heads)}"
            )
            raise ValueError(
                f'model.positions = "rotary" turns pairs, and model.width / model.heads = {self.width} / '
                f"{self.heads} = {self.width // self.heads} is odd; use {advice}"
            )
        return self


def near_divisors(number: int, wanted: int) -> str:
    """The three nearest to what was wanted."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return ", ".join(map(str, sorted(sorted(divisors, key=lambda d: abs(d - wanted))[:3])))


class RecurrentConfig(Section):
    """Sutskever, Vinyals and Le 2014: LSTM or GRU encoder-decoder without attention."""

    architecture: Literal["recurrent"]  # which model this is; the other keys follow from it
    preset: Literal["tiny", "small", "sutskever2014"] | None = None  # sizes by name: defaults of other keys
    cell: Literal["lstm", "gru"] = "lstm"  # of every layer
    embedding_width: Size  # of both sides
    hidden_width: Size  # of a layer's state; the embedding width where embeddings are tied to the output
    layers: Size  # of the encoder, and of the decoder
    bidirectional: bool = False  # the encoder reads both ways; each direction has half of hidden_width
    reverse_source: bool = False  # read the source from its last word to its first
    residual: bool = False  # connections around each layer from the second on
    dropout: Rate  # between layers and before the output
    embedding_dropout: Rate | None = None  # on embeddings; if not set, as dropout
    # One matrix for source, target and output, for target and output, or for none.
    tie_embeddings: Literal["all", "target", "none"] = "none"
    initialization: Literal["scaled", "paper"] = "scaled"  # of weights; paper: uniform in +-0.08

    @model_validator(mode="after")
    def _shapes_fit(self) -> RecurrentConfig:
        _check_stack(self)
        _check_tied(self.tie_embeddings, "hidden_width", self.hidden_width, self.embedding_width)
        return self


class BahdanauConfig(Section):
    """Bahdanau, Cho and Bengio 2014: bidirectional gated encoder, gated decoder with additive attention."""

    architecture: Literal["bahdanau"]  # which model this is; the other keys follow from it
    preset: Literal["tiny", "small", "base", "bahdanau2014"] | None = (
        None  # sizes by name: defaults of other keys
    )
    embedding_width: Size  # of both sides; m in the paper
    hidden_width: Size  # of the decoder's state and of each direction of the encoder; n in the paper
    attention_width: Size  # of the layer inside attention; n' in the paper
    # Of the deep output, l in the paper; the embedding width where embeddings are tied to the output.
    maxout_width: Size
    dropout: Rate  # on the annotations and on the deep output
    embedding_dropout: Rate | None = None  # on embeddings; if not set, as dropout
    attention_dropout: Rate = 0.0  # on the weights of attention
    # One matrix for source, target and output, for target and output, or for none.
    tie_embeddings: Literal["all", "target", "none"] = "target"
    initialization: Literal["scaled", "paper"] = "scaled"  # of weights; paper: its appendix B.1

    @model_validator(mode="after")
    def _shapes_fit(self) -> BahdanauConfig:
        _check_tied(self.tie_embeddings, "maxout_width", self.maxout_width, self.embedding_width)
        return self


class LuongConfig(Section):
    """Luong, Pham and Manning 2015: attention with the current state, global or local, input feeding."""

    architecture: Literal["luong"]  # which model this is; the other keys follow from it
    preset: Literal["tiny", "small", "luong2015"] | None = None  # sizes by name: defaults of other keys
    score: Literal["dot", "general", "concat", "location"] = "general"  # how well two states fit: eq. 7, 8
    # Where attention looks: everywhere, around the same place (local-m), or a place foretold (local-p).
    window: Literal["global", "local-m", "local-p"] = "global"
    window_size: Size = 10  # D of the local windows, which see 2 D + 1 words
    max_positions: Size = 1024  # longest source of the location score
    input_feeding: bool = True  # the attentional vector goes into the decoder's next step
    cell: Literal["lstm", "gru"] = "lstm"  # of every layer
    embedding_width: Size  # of both sides
    hidden_width: Size  # of a layer's state
    # Of the attentional vector; the embedding width where embeddings are tied to the output.
    attentional_width: Size
    layers: Size  # of the encoder, and of the decoder
    bidirectional: bool = False  # the encoder reads both ways; each direction has half of hidden_width
    reverse_source: bool = False  # read the source from its last word to its first
    residual: bool = False  # connections around each layer from the second on
    dropout: Rate  # between layers, on the source states and on the attentional vector
    embedding_dropout: Rate | None = None  # on embeddings; if not set, as dropout
    attention_dropout: Rate = 0.0  # on the weights of attention
    # One matrix for source, target and output, for target and output, or for none.
    tie_embeddings: Literal["all", "target", "none"] = "target"
    initialization: Literal["scaled", "paper"] = "scaled"  # of weights; paper: uniform in +-0.1

    @model_validator(mode="after")
    def _shapes_fit(self) -> LuongConfig:
        _check_stack(self)
        _check_tied(self.tie_embeddings, "attentional_width", self.attentional_width, self.embedding_width)
        return self


def _check_stack(model: RecurrentConfig | LuongConfig) -> None:
    if model.bidirectional and model.hidden_width % 2:
        raise ValueError(
            f"model.hidden_width = {model.hidden_width} is odd, and each direction of the encoder has half "
            f"of it; use {model.hidden_width + 1} or model.bidirectional = false"
        )
    if model.residual and model.layers == 1:
        raise ValueError(
            "model.residual = true needs a second layer to go around; set model.layers = 2 or more, "
            "or model.residual = false"
        )


def _check_tied(tie: str, key: str, width: int, embedding_width: int) -> None:
    if tie != "none" and width != embedding_width:
        raise ValueError(
            f"model.{key} = {width} must equal model.embedding_width = {embedding_width} while the output is "
            'tied to the embedding; set model.tie_embeddings = "none"'
        )


def _architecture_of(value: Any) -> str:
    return str(value.get("architecture") if isinstance(value, dict) else value.architecture)


ModelConfig = Annotated[
    Annotated[TransformerConfig, Tag("transformer")]
    | Annotated[RecurrentConfig, Tag("recurrent")]
    | Annotated[BahdanauConfig, Tag("bahdanau")]
    | Annotated[LuongConfig, Tag("luong")],
    Discriminator(_architecture_of),
]
MODEL_SECTIONS: dict[str, type[Section]] = {
    "transformer": TransformerConfig,
    "recurrent": RecurrentConfig,
    "bahdanau": BahdanauConfig,
    "luong": LuongConfig,
}
