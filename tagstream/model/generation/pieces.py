"""Text → piece ids: word pieces learned from titles and value names, Han text by character.

    title pieces … <tags>  <group> value pieces …  <group> value pieces …  <end>

A group is one token of its own; a value is written in the same pieces as the titles, so that a value that
occurs in the title can be copied, and a wrong spelling is possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from tagstream.core.language import HAN
from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.text.fields import in_order

PAD, UNKNOWN, TAGS, END = "<pad>", "<unk>", "<tags>", "<end>"
#: The rest of a text is not read, whatever the limit in pieces: it bounds the time of splitting.
MAX_CHARACTERS = 2000
_HAN = f"[{HAN}]"
_INSIDE = "##"


class Pieces:
    """A tokenizer that knows the tokens of one taxonomy's groups."""

    def __init__(self, tokenizer: Tokenizer, taxonomy: Taxonomy) -> None:
        """Adds the tokens that `tokenizer` lacks: those of the groups, `<pad>`, `<tags>` and `<end>`."""
        groups = [f"<{group.name}>" for group in taxonomy.groups]
        tokenizer.add_special_tokens([PAD, TAGS, END, *groups])
        self.tokenizer = tokenizer
        self.pad, self.tags, self.end = (self._id(token) for token in (PAD, TAGS, END))
        #: Of each group, in taxonomy order.
        self.groups = [self._id(token) for token in groups]

    def _id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer cannot take the token {token}")
        return int(found)

    @property
    def size(self) -> int:
        """Number of different ids."""
        return int(self.tokenizer.get_vocab_size())

    def texts(self, texts: Sequence[TextFields], max_pieces: int) -> list[list[int]]:
        """The first `max_pieces` of title, brand, attributes and description; what follows is not read."""
        encoded = self.tokenizer.encode_batch([_joined(text) for text in texts], add_special_tokens=False)
        return [text.ids[:max_pieces] for text in encoded]

    def value(self, value: str) -> list[int]:
        """Raises ValueError for a value with characters that the tokenizer does not know."""
        ids = list(self.tokenizer.encode(value, add_special_tokens=False).ids)
        if not ids or self.tokenizer.token_to_id(UNKNOWN) in ids:
            raise ValueError(f"the tokenizer cannot spell the value {value!r}")
        return ids


def learn(texts: Iterable[TextFields], taxonomy: Taxonomy, size: int) -> Pieces:
    """About `size` pieces: every character, the words of the values, and the most frequent words of the
    texts. Another word is its longest known beginning and so on, down to characters. The same texts give
    the same pieces (the BPE trainer of `tokenizers` breaks ties by chance)."""
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_HAN), "isolated"), pre_tokenizers.Whitespace()]
    )

    def words(text: str) -> list[str]:
        return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]

    of_values = [word for group in taxonomy.groups for value in group.values for word in words(value.value)]
    counts = Counter(word for text in texts for word in words(_joined(text)))
    characters = sorted({character for word in (*of_values, *counts) for character in word})
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    known = [UNKNOWN, *characters, *(_INSIDE + character for character in characters), *of_values]
    vocabulary = list(dict.fromkeys([*known, *frequent[: max(0, size - len(known))]]))
    tokenizer = Tokenizer(
        models.WordPiece(
            {piece: at for at, piece in enumerate(vocabulary)},
            unk_token=UNKNOWN,
            continuing_subword_prefix=_INSIDE,
            max_input_chars_per_word=MAX_CHARACTERS,
        )
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    return Pieces(tokenizer, taxonomy)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer.json. Raises ValueError for what is no tokenizer of the `tokenizers` library."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no {path.name}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path}: no tokenizer: {error}") from error


def _joined(text: TextFields) -> str:
    joined = " ".join(field for field in in_order(text) if field)[:MAX_CHARACTERS]
    return joined.encode("utf-8", errors="replace").decode("utf-8")
