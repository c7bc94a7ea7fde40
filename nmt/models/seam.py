"""What every architecture offers, and all that training and search know of a model.

`keep`, of a memory or a state, may be given a row twice (`nmt.search`: `_Batch.refill`, `Rows.keep`). The one
that comes again is scratch, a place for `put` to fill, and should cost nothing: what stands in it need not be
copied, and none of its hypotheses live, so a step with `live_N` does not compute them.

B sentences, S source length, T target length, K hypotheses, D width, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, Self

from torch import Tensor, nn

from nmt.models.embeddings import Embeddings


class Memory(Protocol):
    """All that the decoder reads of the source, stored once a sentence."""

    @property
    def mask_BS(self) -> Tensor:
        """bool, True at source tokens, False at padding."""

    def keep(self, sentences_B: Tensor) -> Self:
        """The memory of some of the sentences, by index; one that comes again is scratch."""

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
        """The state of some of the sentences, by index; one that comes again is scratch."""

    def put(self, sentences_R: Tensor, other: Self) -> Self:
        """With the sentences of `other`, which have as many hypotheses, in the places of these."""


class SearchModel(Protocol):
    """What search knows of a model: an architecture, or the form of one that `nmt.models.fast` makes.

    `memory` and `state`, of type Any, are its own kinds of Memory and State: those that it gave.
    `record`, where a list is given, receives attention weights; each architecture says which.
    """

    embeddings: Embeddings

    @abstractmethod
    def encode(self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None = None) -> Memory:
        """The memory of a batch; padding is where the mask is False."""

    @abstractmethod
    def start(self, memory: Any) -> State:
        """The state before the first token, one hypothesis a sentence."""

    @abstractmethod
    def step(
        self,
        token_BK: Tensor,
        memory: Any,
        state: Any,
        live_N: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> tuple[Tensor, State]:
        """One token further: hidden (B, K, D) and the next state.

        With `live_N`, flat indices b * K + k, only those hypotheses are computed: hidden (N, D). The others
        must not be selected again. `record` gets weights over the source alone, (B, H, K, S) for each layer.
        """

    @abstractmethod
    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., D) -> (..., V)."""


class Model(nn.Module, SearchModel):
    """An encoder-decoder, the module that is trained: the base class of every architecture."""

    most_source_tokens: int | None  # longest source the model has positions for, its end included
    most_target_tokens: int | None
    # Entries that a decoder layer adds to `record`, the first of them over the source; 0: no attention.
    recorded_a_layer: int

    @abstractmethod
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
