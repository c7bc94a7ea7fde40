"""What every architecture offers, and all that training and search know of a model.

B sentences, S source length, T target length, K hypotheses, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

from torch import Tensor

from nmt.models.embeddings import Embeddings


class Memory(Protocol):
    """All that the decoder reads of the source, stored once a sentence."""

    mask_BS: Tensor  # bool, True at source tokens, False at padding

    def keep(self, sentences_B: Tensor) -> Self:
        """The memory of some of the sentences, by index; an index may come twice."""

    def put(self, sentences_R: Tensor, other: Self) -> Self:
        """With the sentences of `other`, in order, in the places of these. May write into this one."""


class State(Protocol):
    """What the decoder remembers of the K hypotheses of each sentence.

    A value: each method returns another. A state that was passed to `step` may share its
    storage with the one that comes back, so only the latest may be used.
    """

    def select(self, beam_BK: Tensor) -> Self:
        """Hypothesis k of the result continues hypothesis beam[b, k] of this state."""

    def keep(self, sentences_B: Tensor) -> Self:
        """The state of some of the sentences, by index; an index may come twice."""

    def put(self, sentences_R: Tensor, other: Self) -> Self:
        """With the sentences of `other`, which have as many hypotheses, in the places of these."""


class Model(Protocol):
    """An encoder-decoder. `memory` and `state` are the architecture's own kinds of Memory and State.

    `record`, where a list is given, receives attention weights; each architecture says which.
    """

    embeddings: Embeddings
    most_source_tokens: int | None  # longest source the model has positions for, its end included
    most_target_tokens: int | None
    # Entries that a decoder layer adds to `record`, the first of them over the source; 0: no attention.
    recorded_a_layer: int

    def encode(self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None = None) -> Any:
        """The memory of a batch; padding is where the mask is False."""

    def decode(
        self,
        target_BT: Tensor,
        memory: Any,
        record: list[Tensor] | None = None,
        recorded_layer: int | None = None,
    ) -> Tensor:
        """Teacher forcing: hidden (B, T, D), position t having seen tokens 0..t.

        Args:
            recorded_layer: the one, from 0, whose weights `record` gets; all without it.
        """

    def start(self, memory: Any) -> Any:
        """The state before the first token, one hypothesis a sentence."""

    def step(
        self,
        token_BK: Tensor,
        memory: Any,
        state: Any,
        live_N: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        """One token further: hidden (B, K, D) and the next state.

        With `live_N`, flat indices b * K + k, only those hypotheses are computed: hidden (N, D). The others
        must not be selected again. `record` gets weights over the source alone, (B, H, K, S) for each layer.
        """

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., D) -> (..., V)."""
