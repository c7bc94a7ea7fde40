"""The layers of the Transformer (Vaswani et al. 2017), with post- or pre-norm.

B sentences, S source length, T target length, K hypotheses, D width, H heads, N width of a head,
L slots of the decoding cache.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from nmt.linear import Linear
from nmt.models.attention import MultiHeadProjections, scaled_dot_product
from nmt.models.dropout import add_dropped, dropout
from nmt.models.positions import Places, RelativePositions
from nmt.models.rows import Live

_NORMS: dict[str, type[nn.Module]] = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "swiglu": F.silu}


def make_norm(norm_type: str, width: int) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm, x / sqrt(mean(x^2)) * g (Zhang and Sennrich 2019, eq. 4)."""
    return _NORMS[norm_type](width, eps=1e-5)


class FeedForward(nn.Module):
    """f(x W1 + b1) W2 + b2 with f ReLU (Vaswani et al. 2017, eq. 2) or GELU (Hendrycks and Gimpel 2016).

    "swiglu": (SiLU(x W + a) * (x V + b)) W2 + c (Shazeer 2020, eq. 6), W being `gate`, V `inner`. The
    biases, which the paper leaves out, are kept, as in the others; they begin at 0.
    """

    def __init__(self, width: int, inner_width: int, dropout: float, activation: str = "relu"):
        super().__init__()
        self.inner = Linear(width, inner_width)
        self.gate = Linear(width, inner_width) if activation == "swiglu" else None
        self.outer = Linear(inner_width, width)
        self.activation = _ACTIVATIONS[activation]
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        if self.activation is F.relu and isinstance(self.inner, Linear):
            inner = self.inner(x, relu=True)
        elif self.gate is None:
            inner = self.activation(self.inner(x))
        else:
            inner = self.activation(self.gate(x)) * self.inner(x)
        outer: Tensor = self.outer(dropout(inner, self.dropout, self.training))
        return outer


class Residual(nn.Module):
    """x + dropout(sublayer(x)): normalised after the sum (post, the paper), or before the sub-layer (pre)."""

    def __init__(self, width: int, *, pre_norm: bool, dropout: float, norm_type: str = "layernorm"):
        super().__init__()
        self.norm = make_norm(norm_type, width)
        self.pre_norm = pre_norm
        self.dropout = dropout

    def enter(self, x: Tensor) -> Tensor:
        """The sub-layer's input."""
        return self.norm(x) if self.pre_norm else x

    def leave(self, x: Tensor, output: Tensor) -> Tensor:
        """The layer's result from its input and the sub-layer's output."""
        x = add_dropped(x, output, self.dropout, self.training)
        return x if self.pre_norm else self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward. `relative_distance` None: no relative positions."""

    def __init__(
        self,
        width: int,
        feed_forward_width: int,
        heads: int,
        *,
        pre_norm: bool,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
        norm_type: str = "layernorm",
        activation: str = "relu",
        relative_distance: int | None = None,
    ):
        super().__init__()
        self.attention = MultiHeadProjections(width, heads)
        self.relative = RelativePositions(relative_distance, width // heads) if relative_distance else None
        self.attention_residual = Residual(width, pre_norm=pre_norm, dropout=dropout, norm_type=norm_type)
        self.feed_forward = FeedForward(width, feed_forward_width, activation_dropout, activation)
        self.feed_forward_residual = Residual(width, pre_norm=pre_norm, dropout=dropout, norm_type=norm_type)
        self.attention_dropout = attention_dropout

    def forward(
        self,
        x_BSD: Tensor,
        bias_B11S: Tensor | None,
        record: list[Tensor] | None,
        places: Places = Places(),
    ) -> Tensor:
        entered_BSD = self.attention_residual.enter(x_BSD)
        query, key, value = self.attention.query_key_value(entered_BSD, places.rotation_QM)
        context = scaled_dot_product(
            query,
            key,
            value,
            bias=bias_B11S,
            relative=self.relative,
            distance_B1QS=places.distance_B1QS,
            dropout=self.attention_dropout if self.training else 0.0,
            record=record,
        )
        x_BSD = self.attention_residual.leave(x_BSD, self.attention.merge(context))
        inner = self.feed_forward(self.feed_forward_residual.enter(x_BSD))
        return self.feed_forward_residual.leave(x_BSD, inner)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention over the memory, then feed-forward; arguments as `EncoderLayer`."""

    def __init__(
        self,
        width: int,
        feed_forward_width: int,
        heads: int,
        *,
        pre_norm: bool,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
        norm_type: str = "layernorm",
        activation: str = "relu",
        relative_distance: int | None = None,
    ):
        super().__init__()
        self.self_attention = MultiHeadProjections(width, heads)
        self.relative = RelativePositions(relative_distance, width // heads) if relative_distance else None
        self.self_residual = Residual(width, pre_norm=pre_norm, dropout=dropout, norm_type=norm_type)
        self.cross_attention = MultiHeadProjections(width, heads)
        self.cross_residual = Residual(width, pre_norm=pre_norm, dropout=dropout, norm_type=norm_type)
        self.feed_forward = FeedForward(width, feed_forward_width, activation_dropout, activation)
        self.feed_forward_residual = Residual(width, pre_norm=pre_norm, dropout=dropout, norm_type=norm_type)
        self.attention_dropout = attention_dropout

    def forward(
        self,
        x_BTD: Tensor,
        memory_key_BHSN: Tensor,
        memory_value_BHSN: Tensor,
        bias_B11S: Tensor | None,
        record: list[Tensor] | None,
        places: Places = Places(),
    ) -> Tensor:
        """All positions at once. The weights recorded are those over the memory, then over the prefix."""
        entered_BTD = self.self_residual.enter(x_BTD)
        query, key, value = self.self_attention.query_key_value(entered_BTD, places.rotation_QM)
        own: list[Tensor] | None = None if record is None else []
        context = scaled_dot_product(
            query,
            key,
            value,
            causal=True,
            relative=self.relative,
            distance_B1QS=places.distance_B1QS,
            dropout=self._attention_dropout(),
            record=own,
        )
        x_BTD = self.self_residual.leave(x_BTD, self.self_attention.merge(context))
        x_BTD = self._after_self_attention(x_BTD, memory_key_BHSN, memory_value_BHSN, bias_B11S, record)
        if record is not None and own is not None:
            record += own
        return x_BTD

    def step(
        self,
        x: Tensor,
        live: Live,
        memory_key_BHSN: Tensor,
        memory_value_BHSN: Tensor,
        bias_B11S: Tensor | None,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        bias_B1KL: Tensor,
        places: Places = Places(),
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """One token of the hypotheses that live, (N, D). `remember`: from the keys and values of this token
        (B, H, K, N) to those of all slots (B, H, L, N)."""
        query, key, value = self.self_attention.query_key_value(
            self.self_residual.enter(x), places.rotation_QM, live
        )
        key_BHLN, value_BHLN = remember(key, value)
        context = scaled_dot_product(
            query,
            key_BHLN,
            value_BHLN,
            bias=bias_B1KL,
            relative=self.relative,
            distance_B1QS=places.distance_B1QS,
        )
        x = self.self_residual.leave(x, self.self_attention.merge(context, live))
        return self._after_self_attention(x, memory_key_BHSN, memory_value_BHSN, bias_B11S, record, live)

    def _after_self_attention(
        self,
        x_BTD: Tensor,
        memory_key_BHSN: Tensor,
        memory_value_BHSN: Tensor,
        bias_B11S: Tensor | None,
        record: list[Tensor] | None,
        live: Live | None = None,
    ) -> Tensor:
        query = self.cross_attention.query(self.cross_residual.enter(x_BTD), live)
        context = scaled_dot_product(
            query,
            memory_key_BHSN,
            memory_value_BHSN,
            bias=bias_B11S,
            dropout=self._attention_dropout(),
            record=record,
        )
        x_BTD = self.cross_residual.leave(x_BTD, self.cross_attention.merge(context, live))
        inner = self.feed_forward(self.feed_forward_residual.enter(x_BTD))
        return self.feed_forward_residual.leave(x_BTD, inner)

    def _attention_dropout(self) -> float:
        return self.attention_dropout if self.training else 0.0
