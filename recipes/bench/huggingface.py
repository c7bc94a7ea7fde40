"""Our Transformer in a class of Hugging Face that computes the same: Marian (post-norm), M2M100 (pre-norm).

B sentences, S source length, T target length, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nmt.config import SearchConfig
from nmt.data.batches import pad
from nmt.data.tokenizer import BOS, EOS, PAD, UNK
from nmt.model_config import TransformerConfig
from nmt.models.positions import sinusoidal_positions

Ids = Sequence[int]


def unsupported(settings: Any) -> str | None:
    """Why a model cannot be held by these classes; None if it can."""
    if not isinstance(settings, TransformerConfig):
        return f"Hugging Face has no class for {settings.architecture} models"
    keys = {
        "norm_type": ("layernorm",),
        "activation": ("relu", "gelu"),
        "positions": ("sinusoidal", "learned"),
    }
    for key, possible in keys.items():
        if getattr(settings, key) not in possible:
            return f"Marian and M2M100 have no {key} = {getattr(settings, key)}"
    return None


@torch.no_grad()
def convert(model: Any, settings: TransformerConfig, longest: int) -> Any:
    """A MarianMTModel or M2M100ForConditionalGeneration with the model's weights, in evaluation mode.

    Args:
        model: an nmt.models.transformer.Transformer of these settings.
        longest: positions there are encodings for.
    """
    import transformers

    sizes: dict[str, Any] = dict(
        vocab_size=model.embeddings.target.num_embeddings,
        d_model=settings.width,
        encoder_layers=settings.encoder_layers,
        decoder_layers=settings.decoder_layers,
        encoder_attention_heads=settings.heads,
        decoder_attention_heads=settings.heads,
        encoder_ffn_dim=settings.feed_forward_width,
        decoder_ffn_dim=settings.decoder_feed_forward_width or settings.feed_forward_width,
        activation_function=settings.activation,
        max_position_embeddings=longest,
        scale_embedding=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
    )
    post_norm = settings.norm == "post"
    theirs: Any
    if post_norm:
        theirs = transformers.MarianMTModel(transformers.MarianConfig(**sizes))
        theirs.final_logits_bias.zero_()
    else:
        theirs = transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**sizes))
    embeddings = model.embeddings
    encoder, decoder = theirs.model.encoder, theirs.model.decoder
    encoder.embed_tokens.weight = nn.Parameter(embeddings.source.weight.clone())
    decoder.embed_tokens.weight = nn.Parameter(embeddings.target.weight.clone())
    theirs.lm_head.weight = nn.Parameter(embeddings.output.weight.clone())
    for stack, own in ((encoder, model.source_positions), (decoder, model.target_positions)):
        if settings.positions == "learned":
            table = own.table.weight[:longest]
        else:
            table = sinusoidal_positions(0, longest, settings.width, torch.empty(0))
        if post_norm:
            stack.embed_positions.weight[: len(table)] = table
        else:  # position i stands in the row after that of padding
            stack.embed_positions.weights[PAD + 1 : PAD + 1 + len(table)] = table
    for mine, layer in zip(model.encoder, encoder.layers, strict=True):
        _attention(mine.attention, layer.self_attn)
        _copy(mine.attention_residual.norm, layer.self_attn_layer_norm)
        _feed_forward(mine, layer)
    for mine, layer in zip(model.decoder, decoder.layers, strict=True):
        _attention(mine.self_attention, layer.self_attn)
        _copy(mine.self_residual.norm, layer.self_attn_layer_norm)
        _attention(mine.cross_attention, layer.encoder_attn)
        _copy(mine.cross_residual.norm, layer.encoder_attn_layer_norm)
        _feed_forward(mine, layer)
    if not post_norm:
        _copy(model.encoder_norm, encoder.layer_norm)
        _copy(model.decoder_norm, decoder.layer_norm)
    return theirs.eval()


def _copy(mine: nn.Module, theirs: nn.Module) -> None:
    theirs.load_state_dict(mine.state_dict())


def _attention(mine: Any, theirs: Any) -> None:
    weights, biases = mine.input.weight.chunk(3), mine.input.bias.chunk(3)
    for layer, weight, bias in zip(
        (theirs.q_proj, theirs.k_proj, theirs.v_proj), weights, biases, strict=True
    ):
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    _copy(mine.output, theirs.out_proj)


def _feed_forward(mine: Any, theirs: Any) -> None:
    _copy(mine.feed_forward.inner, theirs.fc1)
    _copy(mine.feed_forward.outer, theirs.fc2)
    _copy(mine.feed_forward_residual.norm, theirs.final_layer_norm)


@torch.inference_mode()
def log_probabilities(theirs: Any, source_BS: Tensor, input_BT: Tensor) -> Tensor:
    """(B, T, V), by teacher forcing."""
    found = theirs(input_ids=source_BS, attention_mask=source_BS.ne(PAD), decoder_input_ids=input_BT)
    logits_BTV: Tensor = found.logits
    return logits_BTV.log_softmax(dim=-1)


def longest_translation(search: SearchConfig, source_tokens: int) -> int:
    """Of so many source tokens, the end of sentence of either not counted, resp. counted."""
    return search.most_tokens(source_tokens)


class Generate:
    """`generate` over batches of similar length, longest first."""

    def __init__(self, theirs: Any, search: SearchConfig, *, word_level: bool = False):
        self.theirs, self.search = theirs, search
        self.excluded = [PAD, BOS] if word_level else [PAD, BOS, UNK]

    @torch.inference_mode()
    def translate_ids(self, sources: Sequence[Ids], batch_size: int) -> list[list[int]]:
        """The best translation of each source, without special tokens; token ids without end of sentence."""
        from transformers import GenerationConfig

        result: list[list[int]] = [[] for _ in sources]
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            source_BS = torch.from_numpy(pad([[*sources[i], EOS] for i in batch], PAD)).to(self.theirs.device)
            beam: dict[str, Any] = {}
            if self.search.beam_size > 1:
                beam = dict(num_beams=self.search.beam_size, length_penalty=self.search.length_penalty)
            settings: Any = GenerationConfig(  # type: ignore[no-untyped-call]
                max_new_tokens=longest_translation(self.search, len(sources[batch[0]])),
                pad_token_id=PAD,
                bos_token_id=BOS,
                eos_token_id=EOS,
                decoder_start_token_id=BOS,
                forced_eos_token_id=EOS,
                suppress_tokens=self.excluded,
                do_sample=False,
                **beam,
            )
            # A setting that is None here is taken from the model's own.
            found = self.theirs.generate(
                input_ids=source_BS, attention_mask=source_BS.ne(PAD), generation_config=settings
            )
            for index, row in zip(batch, found[:, 1:].tolist(), strict=True):
                result[index] = row[: row.index(EOS)] if EOS in row else row
        return result
