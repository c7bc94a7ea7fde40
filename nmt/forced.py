"""Force-decoding: what a model makes of a translation that is given to it.

B sentences, S and T source and target tokens with their ends, L layers, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nmt.checkpoint import LoadedModel
from nmt.data.batches import cut, pad
from nmt.data.tokenizer import BOS, EOS, PAD
from nmt.ensemble import mean_log_probability, readers
from nmt.errors import UserError
from nmt.loss import log_probabilities as log_probabilities_of_rows
from nmt.translator import Translator

Ids = Sequence[int]  # token ids without beginning and end of sentence
Weights = npt.NDArray[np.float32]
LogProbabilities = npt.NDArray[np.float32]  # (T,)


def require_attention(loaded: LoadedModel) -> None:
    """UserError where the model's architecture has no attention over the source."""
    if not loaded.model.recorded_a_layer:
        raise UserError(
            f'model.architecture = "{loaded.config.model.architecture}" has no attention over the source; '
            "use a model of architecture bahdanau, luong, transformer",
            file=loaded.folder,
        )


def fitting(loaded: LoadedModel, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[bool]:
    """Whether each pair is within what the model reads and writes when it translates a line in one part."""
    translator = Translator.of(loaded)
    most_target = translator.longest(translator.most_source_tokens) - 1
    return [
        len(source) <= translator.most_source_tokens and len(target) <= most_target
        for source, target in zip(sources, targets, strict=True)
    ]


@torch.inference_mode()
def attention(
    loaded: LoadedModel, sources: Sequence[Ids], targets: Sequence[Ids], *, tag: str | None = None
) -> Iterator[tuple[int, Weights]]:
    """Attention over the source of sentence pairs, in batches of similar length.

    `tag` comes before each source; None: the model's own `search.tag`.

    Row t belongs to the target token predicted at position t, the last to the end of sentence. A row
    sums to 1, to less under the bell of Luong's local attention. Weights of long sentences are large,
    hence an iterator: keep what is needed of each.

    Yields:
        The index of a pair and its weights (L, H, T, S), longest pairs first.

    Raises:
        UserError: the model has no attention, or does not know the tag.
    """
    require_attention(loaded)
    tag = loaded.config.search.tag if tag is None else tag
    (read,) = readers([loaded], tag)
    for batch in _batches(loaded, sources, targets):
        record: list[Tensor] = []
        _decode(loaded, [read(sources[i]) for i in batch], [targets[i] for i in batch], record)
        weights_LBHTS = torch.stack(record[:: loaded.model.recorded_a_layer]).float().cpu().numpy()
        first = int(bool(tag))  # what a tag gets belongs to no word
        for place, index in enumerate(batch):
            rows, columns = len(targets[index]) + 1, len(sources[index]) + 1
            yield index, weights_LBHTS[:, place, :, :rows, first : first + columns]


@torch.inference_mode()
def log_probabilities(
    models: Sequence[LoadedModel],
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    *,
    batch_tokens: int | None = None,
    by: str = "probability",
    tag: str | None = None,
    lines: Sequence[str | None] | None = None,
) -> list[LogProbabilities]:
    """Of each target's tokens and, last, of its end of sentence, in nats.

    Of several models, which have the same target vocabulary, the mean counts, as in search.

    Args:
        batch_tokens: a batch holds as many pairs as fit with pairs x longest side <= this; the first
            model's `search.batch_tokens` where it is not given.
        by: of `nmt.ensemble.mean_log_probability`.
        tag: comes before each source; None: the first model's `search.tag`.
        lines: the text of sources that are whole lines, for models with another source vocabulary.
    """
    reading = readers(models, models[0].config.search.tag if tag is None else tag)
    texts = lines or [None] * len(sources)
    found: list[LogProbabilities] = [np.empty(0, np.float32)] * len(targets)
    for batch in _batches(models[0], sources, targets, batch_tokens):
        batch_targets = [targets[i] for i in batch]
        of_models = []
        for loaded, reader in zip(models, reading, strict=True):
            read = [reader(sources[i], texts[i]) for i in batch]
            hidden_BTD, output_BT = _decode(loaded, read, batch_targets)
            output = loaded.model.embeddings.output
            is_token_BT = output_BT != PAD
            of_models.append(
                log_probabilities_of_rows(
                    hidden_BTD[is_token_BT], output.weight, output.bias, output_BT[is_token_BT]
                )
            )
        mean_N = mean_log_probability(of_models, by)
        # Row by row: the tokens of the first pair, of the second, ...
        ends = np.cumsum([len(target) + 1 for target in batch_targets])[:-1]
        for index, values in zip(batch, np.split(mean_N.float().cpu().numpy(), ends), strict=True):
            found[index] = values
    return found


def _batches(
    loaded: LoadedModel, sources: Sequence[Ids], targets: Sequence[Ids], batch_tokens: int | None = None
) -> Iterator[list[int]]:
    """Indices of pairs, longest first: if memory runs out it does so at once."""
    longest = np.array([max(len(s), len(t)) + 1 for s, t in zip(sources, targets, strict=True)])
    order = np.argsort(-longest, kind="stable")
    for start, end in cut(longest[order], batch_tokens or loaded.config.search.tokens_together):
        yield order[start:end].tolist()


def _decode(
    loaded: LoadedModel, sources: Sequence[Ids], targets: Sequence[Ids], record: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Hidden states (B, T, D) and the tokens to be predicted from them (B, T)."""
    model = loaded.model
    device = next(model.parameters()).device
    source_BS = torch.from_numpy(pad([[*ids, EOS] for ids in sources], PAD)).to(device)
    input_BT = torch.from_numpy(pad([[BOS, *ids] for ids in targets], PAD)).to(device)
    output_BT = torch.from_numpy(pad([[*ids, EOS] for ids in targets], PAD)).to(device)
    return model.decode(input_BT, model.encode(source_BS, source_BS != PAD), record), output_BT
