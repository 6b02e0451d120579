"""A first taxonomy from labelled products: which columns are labels, their kinds, values and parents.

A column is a label if few different values come back often, and they are no ids, prose or measures.
A column is `multi` if its cells hold several values with a separator between them. One group is the parent of
another if a row's value in the second nearly always decides the one in the first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagstream.core.errors import BadSettings
from tagstream.core.taxonomy import VALUE_MAX_CHARS, Group, Taxonomy, Value, versioned
from tagstream.dataset.columns import ALIASES, NO_COLUMN, NOT_GROUPS, Columns, split_cell
from tagstream.dataset.names import GROUP_NAMES, value_names
from tagstream.dataset.table import Line, products_file, read_table

#: Longer on average, and it is prose.
_LABEL_MEAN_CHARS = 40
#: A label with more different values than this share of its rows would have too few rows each.
_DISTINCT_MAX_SHARE = 0.5
#: From this share of cells with a separator in them, a column has several values a cell.
_MULTI_MIN_SHARE = 0.02
#: How much of what the commonest parent does not explain the child must decide.
_PARENT_MIN_GAIN = 0.95
#: A text that stands on more rows than this on average tells of their class, and would give labels away.
_TEXTS = ("title", "description")
_TEXT_MAX_ROWS = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one column, and why. `role`: id, title, …, label, or "" for none."""

    column: str
    role: str
    why: str


def induce(
    source: Path, columns: Columns | None = None, min_rows: int = 10
) -> tuple[Taxonomy, list[Finding]]:
    """A taxonomy of the values with at least `min_rows` rows, the most frequent first, and its reasons.

    `columns.labels` are taken as labels whatever they look like.

    Raises:
        BadSettings: the file cannot be read, or no column gives two values.
    """
    asked = columns or Columns()
    try:
        path = products_file(source)
        table = read_table(path)
        header = table.columns
        roles = asked.found_in(header)
        lines = list(table.lines())
    except ValueError as error:
        raise BadSettings(str(error)) from error
    named = {getattr(roles, role): role for role in ALIASES if getattr(roles, role) != NO_COLUMN}
    found, findings = {}, []
    for name in header:
        column = _Column(lines, name, asked.separators, min_rows)
        role = named.get(name)
        if role in _TEXTS and getattr(asked, role) is None and column.rows > _TEXT_MAX_ROWS * column.distinct:
            why = f"{column.distinct:,} different in {column.rows:,} rows: it tells of a class, not a product"
            findings.append(Finding(name, "", f"{why}; `--{role} {name}` to use it all the same"))
            continue
        if role is not None:
            why = "by its name" if getattr(asked, role) is None else "as told"
            findings.append(Finding(name, role, why))
            continue
        if asked.labels is None:
            why_not = column.why_not()
            if why_not is None and name in NOT_GROUPS:
                why_not = "its name says that it is none"
        else:
            why_not = None if name in asked.labels else "not among --labels"
        if why_not is None and len(column.values) < 2:
            why_not = f"fewer than two values have {min_rows} rows"
        if why_not is None:
            found[name] = column
        findings.append(Finding(name, "" if why_not else "label", why_not or column.why()))
    if not found:
        reasons = "; ".join(f"{finding.column}: {finding.why}" for finding in findings if not finding.role)
        raise BadSettings(f"{path}: no column is a label: {reasons}")
    parents = _parents(found)
    findings = [
        replace(finding, why=f"{finding.why}; under {parents[finding.column][0]}")
        if finding.column in parents
        else finding
        for finding in findings
    ]
    return versioned(_group(name, column, parents.get(name)) for name, column in found.items()), findings


class _Column:
    """One column's values. `values`: those that are kept, the most frequent first → rows."""

    def __init__(self, lines: Sequence[Line], name: str, separators: str, min_rows: int) -> None:
        cells = [line.cell(name) for line in lines]
        self.texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
        whole = [_said(cell, "") for cell in cells]
        apart = [_said(cell, separators) for cell in cells]
        self.rows = sum(1 for said in whole if said)
        several = sum(1 for said in apart if len(said) > 1)
        self.multi = bool(self.rows) and several / self.rows >= _MULTI_MIN_SHARE
        self.said = apart if self.multi else whole
        self._spelt = _spellings(self.said)
        counts = Counter(said.casefold() for of_row in self.said for said in of_row)
        self.distinct = len(counts)
        self._counts = counts
        self._several = several
        kept = {key: rows for key, rows in counts.items() if rows >= min_rows and len(key) <= VALUE_MAX_CHARS}
        ordered = sorted(kept.items(), key=lambda pair: (-pair[1], pair[0]))
        self.values = {self._spelt[key]: rows for key, rows in ordered}

    def why_not(self) -> str | None:
        """Why it cannot be a label, None if it can."""
        if not self.rows:
            return "empty"
        if self.distinct == self.rows:
            return "every value is different: ids or prose"
        mean_chars = sum(map(len, self.texts)) / max(1, len(self.texts))
        if mean_chars > _LABEL_MEAN_CHARS:
            return f"{mean_chars:.0f} characters on average: prose"
        if self.distinct > _DISTINCT_MAX_SHARE * self.rows:
            return f"{self.distinct:,} different in {self.rows:,} rows: too many to learn"
        if all(_is_number(text) for text in self._spelt.values()):
            return "numbers: a measure"
        if sum("://" in text for text in self.texts) > len(self.texts) / 2:
            return "addresses"
        return None

    def why(self) -> str:
        """What is kept of it."""
        left, rows = self.distinct - len(self.values), sum(self._counts.values()) - sum(self.values.values())
        kind = f"multi ({self._several:,} cells have several)" if self.multi else "single"
        rest = f"; {left:,} scarcer or longer ones left out ({rows:,} rows)" if left else ""
        return f"{kind}, {len(self.values):,} values in {self.rows:,} rows{rest}"

    def value_of(self, row: int) -> str | None:
        """The kept value of a row of a single-choice column."""
        said = self.said[row]
        spelt = self._spelt[said[0].casefold()] if said else None
        return spelt if spelt in self.values else None


def _said(cell: str | tuple[str, ...], separators: str) -> list[str]:
    return split_cell(cell, separators) if isinstance(cell, str) else list(cell)


def _spellings(said: Sequence[Sequence[str]]) -> dict[str, str]:
    """Casefolded → the commonest way to write it."""
    ways: dict[str, Counter[str]] = defaultdict(Counter)
    for of_row in said:
        for one in of_row:
            ways[one.casefold()][one] += 1
    return {key: max(counter, key=lambda way: (counter[way], way)) for key, counter in ways.items()}


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def _parents(found: Mapping[str, _Column]) -> dict[str, tuple[str, dict[str, str]]]:
    """Child group → (parent group, child value → parent value): the nearest group that it decides."""
    parents = {}
    single = {name: column for name, column in found.items() if not column.multi}
    for child, column in single.items():
        above = {
            name: decided
            for name, candidate in single.items()
            if candidate.distinct < column.distinct and (decided := _decides(column, candidate))
        }
        if above:
            nearest = max(above, key=lambda name: single[name].distinct)
            parents[child] = (nearest, above[nearest])
    return parents


def _decides(child: _Column, parent: _Column) -> dict[str, str] | None:
    """Child value → its commonest parent, if that is nearly always right; None otherwise."""
    pairs: dict[str, Counter[str]] = defaultdict(Counter)
    for row in range(len(child.said)):
        below, over = child.value_of(row), parent.value_of(row)
        if below is not None and over is not None:
            pairs[below][over] += 1
    total = sum(sum(counter.values()) for counter in pairs.values())
    # Where few of the child's rows have the parent too, agreement says little.
    if total < 0.5 * child.rows or not total:
        return None
    right = sum(max(counter.values()) for counter in pairs.values())
    by_chance = max(sum((Counter(counter) for counter in pairs.values()), Counter()).values())
    if right - by_chance < _PARENT_MIN_GAIN * (total - by_chance) or total == by_chance:
        return None
    return {below: counter.most_common(1)[0][0] for below, counter in pairs.items()}


def _group(name: str, column: _Column, parent: tuple[str, dict[str, str]] | None) -> Group:
    values = []
    for value in column.values:
        made: dict[str, object] = {"value": value}
        if parent is not None and value in parent[1]:
            made["parent"] = parent[1][value]
        if names := value_names(name, value):
            made["names"] = names
        values.append(Value.model_validate(made))
    group: dict[str, object] = {"name": name, "kind": "multi" if column.multi else "single"}
    if parent is not None:
        group["parent_group"] = parent[0]
    if group_names := GROUP_NAMES.get(name):
        group["names"] = group_names
    group["values"] = values
    return Group.model_validate(group)
