"""Unknown words in translations: replaced by what the model looked at (Luong et al. 2015, Jean et al. 2015).

Luong, Sutskever, Le, Vinyals and Zaremba 2015, "Addressing the rare word problem", sec. 4: a word for
which the vocabulary has only <unk> is looked up in a dictionary by its source word, or that is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nmt.alignment import default_view
from nmt.checkpoint import LoadedModel
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import UNK
from nmt.errors import UserError
from nmt.forced import Weights, attention, require_attention
from nmt.search import Hypothesis
from nmt.translations import Part
from nmt.words import shares, split_words, token_spans, word_spans


class UnknownWords:
    """Writes hypotheses with their unknown words replaced; a `Translator` takes it as `write`."""

    def __init__(self, loaded: LoadedModel, dictionary: Mapping[str, str] | None = None):
        """`loaded` says by its attention where a word comes from; of an ensemble it is the first model.

        Raises:
            UserError: the model has no attention, or no unknown words.
        """
        if not loaded.target_tokenizer.word_level:
            raise UserError(
                "has nothing to replace: its subwords spell every word; leave --replace-unknown out",
                file=loaded.folder,
            )
        require_attention(loaded)
        self.loaded = loaded
        self.dictionary = dictionary or {}

    def __call__(self, parts: Sequence[Part], found: Sequence[Sequence[Hypothesis]]) -> list[list[str]]:
        """The text of each part's hypotheses."""
        decode = self.loaded.target_tokenizer.decode
        texts = [[decode(hypothesis.tokens) for hypothesis in hypotheses] for hypotheses in found]
        unknown = [
            (part, rank)
            for part, hypotheses in enumerate(found)
            for rank, hypothesis in enumerate(hypotheses)
            if UNK in hypothesis.tokens
        ]
        sources = [parts[part].ids for part, _ in unknown]
        targets = [found[part][rank].tokens for part, rank in unknown]
        for index, weights in attention(self.loaded, sources, targets):
            part, rank = unknown[index]
            origin = self._origins(parts[part], weights)
            words = [
                self.translation(origin[place]) if token == UNK else decode([token])
                for place, token in enumerate(targets[index])
            ]
            texts[part][rank] = " ".join(words)
        return texts

    def translation(self, word: str) -> str:
        """The dictionary's, exact case first, then lower case; else the word itself."""
        return self.dictionary.get(word) or self.dictionary.get(word.lower()) or word

    def _origins(self, part: Part, weights_LHTS: Weights) -> list[str]:
        """The source word each target token attends to most, whatever the end of sentence has."""
        tokens = token_spans(part.line, part.line_ids, self.loaded.source_tokenizer)
        share_SJ = shares(tokens[part.first : part.first + len(part.ids)], word_spans(part.line))
        weights_TJ = default_view(self.loaded).of(weights_LHTS)[:-1, :-1] @ share_SJ
        # A word of another part of the line has no share, and is not to win where all weights vanish.
        weights_TJ[:, share_SJ.sum(axis=0) == 0] = -1
        words = split_words(part.line)
        return [words[place] for place in weights_TJ.argmax(axis=1).tolist()]


def read_dictionary(path: Path) -> dict[str, str]:
    """Lines `source<TAB>target`, or the two words parted by blanks; of a source word the first line counts.

    Raises:
        UserError: names the line that is something else.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = [field.strip(" ") for field in line.split("\t")] if "\t" in line else split_words(line)
        if not fields:
            continue
        if len(fields) != 2 or not all(fields):
            raise UserError(
                "is not a word and its translation; write the two with one tab between them",
                file=path,
                line=number,
            )
        found.setdefault(*fields)
    return found
