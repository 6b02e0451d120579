"""Which tokens may come next: a trie over the values' pieces, and which values agree.

A single-choice group is written once, no tag twice, and no value beside one that contradicts its parents.
A value has ended where the next group, or `<end>`, is allowed: "Sports" may go on to "Sports Shoes".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tagstream.core.hierarchy import lineages
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.generation.pieces import Pieces

_ENDS = -1


@dataclass(eq=False)
class Node:
    """A beginning of values. `columns[i]` goes on with piece `pieces[i]`, or ends here: -1."""

    columns: npt.NDArray[np.int64]
    pieces: npt.NDArray[np.int64]
    children: dict[int, Node] = field(default_factory=dict)

    @property
    def ends(self) -> int | None:
        """The column whose value ends here."""
        found = self.columns[self.pieces == _ENDS]
        return int(found[0]) if len(found) else None


@dataclass(frozen=True, slots=True)
class Draft:
    """What was written so far. `node` is None before the first tag; `allowed` is (taxonomy.size,)."""

    allowed: npt.NDArray[np.bool_]
    node: Node | None = None
    written: tuple[int, ...] = ()
    finished: bool = False


class Grammar:
    def __init__(self, taxonomy: Taxonomy, pieces: Pieces) -> None:
        """Raises ValueError where two values of a group have the same pieces."""
        self._taxonomy = taxonomy
        self._end = pieces.end
        self._group_tokens = np.asarray(pieces.groups)
        self._starts = np.asarray([taxonomy.slices[group.name].start for group in taxonomy.groups])
        self.spelling = [pieces.value(value.value) for group in taxonomy.groups for value in group.values]
        self._roots = {
            token: _trie([*range(columns.start, columns.stop)], self.spelling, 0)
            for token, columns in zip(pieces.groups, taxonomy.slices.values(), strict=True)
        }
        self._claims = _claims(taxonomy)
        self._beside: dict[int, npt.NDArray[np.bool_]] = {}

    def start(self, lang: str) -> Draft:
        """Nothing written; allowed are the live values of the groups that apply to the language."""
        groups = self._taxonomy.groups
        allowed = [value.is_live and group.applies_to(lang) for group in groups for value in group.values]
        return Draft(np.asarray(allowed))

    def permitted(self, draft: Draft) -> npt.NDArray[np.int64]:
        """The tokens that may come next, ascending within value pieces; none after `<end>`."""
        if draft.finished:
            return np.empty(0, np.int64)
        if draft.node is None:
            return self._between(draft.allowed)
        live = np.unique(draft.node.pieces[draft.allowed[draft.node.columns]])
        if len(live) == 0 or live[0] != _ENDS:
            return live
        return np.concatenate([live[1:], self._between(self._closed(draft).allowed)])

    def advance(self, draft: Draft, token: int) -> Draft:
        """The draft with one more permitted token."""
        if draft.node is not None and token in draft.node.children:
            return replace(draft, node=draft.node.children[token])
        closed = draft if draft.node is None else self._closed(draft)
        if token == self._end:
            return replace(closed, finished=True)
        return replace(closed, node=self._roots[token])

    def beside(self, column: int) -> npt.NDArray[np.bool_]:
        """(taxonomy.size,) which tags agree with this one."""
        if column not in self._beside:
            mine = self._claims[column]
            agree = (self._claims == mine) | (self._claims < 0) | (mine < 0)
            self._beside[column] = agree.all(axis=1) & (np.arange(len(agree)) != column)
        return self._beside[column]

    def _closed(self, draft: Draft) -> Draft:
        column = draft.node.ends if draft.node is not None else None
        if column is None:
            raise ValueError("a value is not finished here")
        return Draft(draft.allowed & self.beside(column), None, (*draft.written, column))

    def _between(self, allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        some = np.logical_or.reduceat(allowed, self._starts)
        return np.append(self._group_tokens[some], self._end)


def _trie(columns: Sequence[int], spelling: Sequence[Sequence[int]], depth: int) -> Node:
    pieces = [spelling[column][depth] if len(spelling[column]) > depth else _ENDS for column in columns]
    if pieces.count(_ENDS) > 1:
        raise ValueError(f"two values of a group are spelled alike: {spelling[columns[0]]}")
    node = Node(np.asarray(columns), np.asarray(pieces))
    longer = defaultdict(list)
    for column, piece in zip(columns, pieces, strict=True):
        if piece != _ENDS:
            longer[piece].append(column)
    node.children = {piece: _trie(those, spelling, depth + 1) for piece, those in longer.items()}
    return node


def _claims(taxonomy: Taxonomy) -> npt.NDArray[np.int64]:
    """(taxonomy.size, groups): the column of the value that a tag implies in each single group, or -1."""
    number = {group.name: at for at, group in enumerate(taxonomy.groups)}
    values = [(group.name, value.value) for group in taxonomy.groups for value in group.values]
    column = {value: at for at, value in enumerate(values)}
    claims = np.full((taxonomy.size, len(taxonomy.groups)), -1)
    for value, lineage in lineages(taxonomy).items():
        for above in lineage.items():
            claims[column[value], number[above[0]]] = column[above]
    return claims
