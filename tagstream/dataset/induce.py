"""A taxonomy from labelled data: which columns are labels, their kinds, values, parents and languages.

A column is a label if few different values come back often, and they are no ids, prose or measures. It is
`multi` if its cells hold several values. One group is the parent of another if a row's value in the second
nearly always decides the one in the first. In data of several languages a group is of those languages in
which it has labels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagstream.core.errors import BadSettings
from tagstream.core.language import language_of
from tagstream.core.taxonomy import VALUE_MAX_CHARS, Group, Taxonomy, versioned
from tagstream.dataset.columns import ALIASES, NO_COLUMN, NOT_GROUPS, Columns, objects_of, split_cell
from tagstream.dataset.rows import Row
from tagstream.dataset.split import CLASS_MIN_ROWS, class_lists
from tagstream.dataset.table import Cell, products_file, read_table
from tagstream.text.mentions import longer_names

#: Longer on average, and it is prose.
_LABEL_MEAN_CHARS = 40
#: A label with more different values than this share of its rows would have too few rows each.
_DISTINCT_MAX_SHARE = 0.5
#: From this share of cells with several values, a column has several values a cell.
_MULTI_MIN_SHARE = 0.02
#: How much of what the commonest parent does not explain the child must decide.
_PARENT_MIN_GAIN = 0.95
#: A text that comes back on more rows than this on average names their class, and would give labels away.
_TEXTS = ("title", "description")
_TEXT_MAX_ROWS = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one column, and why. `role`: id, title, …, label, or "" for none."""

    column: str
    role: str
    why: str


def induce(
    source: Path, columns: Columns | None = None, min_rows: int = CLASS_MIN_ROWS
) -> tuple[Taxonomy, list[Finding]]:
    """A taxonomy of a file's values with at least `min_rows` rows, the most frequent first, and its reasons.

    `columns.labels` are taken as labels whatever they look like.

    Raises:
        BadSettings: the file cannot be read, or no column gives two values.
    """
    asked = columns or Columns()
    try:
        table = read_table(products_file(source))
        roles = asked.found_in(table.columns)
        lines = list(table.lines())
        named = {name: role for role in ALIASES if (name := getattr(roles, role)) != NO_COLUMN}
        groups = {roles.of_label(group): group for group in roles.labels or ()}
        outer = objects_of(table.columns)
        texts = [roles.texts(line) for line in lines]
        langs = [language_of(one, of.lang) if (one := of.title or of.description) else "" for of in texts]
        found, findings = {}, []
        for name in table.columns:
            if name in outer and name not in groups:
                continue
            if name not in named and name not in groups:
                findings.append(Finding(name, "", _why_not_offered(name, asked, roles)))
                continue
            column = _Column([line.cell(name) for line in lines], langs, asked.separators, min_rows)
            if name in named:
                findings.append(_role(name, named[name], column, asked))
            else:
                found[groups[name]] = column
                findings.append(column.judged(groups[name], is_told=asked.labels is not None))
        return _taxonomy(found, findings, langs, min_rows)
    except ValueError as error:
        raise BadSettings(str(error) if str(source) in str(error) else f"{source}: {error}") from error


def induce_rows(
    rows: Sequence[Row], told: Collection[str] = (), min_rows: int = CLASS_MIN_ROWS
) -> tuple[Taxonomy, list[Finding]]:
    """The same of labelled rows. `told`: groups that are taken whatever they look like.

    Raises:
        ValueError: no group has two values with `min_rows` rows.
    """
    langs = [row.lang if row.text.title or row.text.description else "" for row in rows]
    found, findings = {}, []
    for name in dict.fromkeys(name for row in rows for name in row.labels):
        cells = (row.labels.get(name, ()) for row in rows)
        column = _Column([cell[0] if len(cell) == 1 else cell for cell in cells], langs, "", min_rows)
        found[name] = column
        findings.append(column.judged(name, is_told=name in told))
    return _taxonomy(found, findings, langs, min_rows)


def apart(rows: Sequence[Row], separators: str) -> list[Row]:
    """The rows of one file, with the cells of columns that hold several values taken apart."""
    cells: dict[str, list[list[str]]] = defaultdict(list)
    for row in rows:
        for name, labels in row.labels.items():
            cells[name].append(_split(labels, separators))
    multi = {name for name, of_column in cells.items() if _are_several(of_column)}

    def split(name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_split(labels, separators)) if name in multi else labels

    return _relabelled(rows, split)


def respelt(rows: Sequence[Row], taxonomy: Taxonomy) -> list[Row]:
    """The rows with their labels as the taxonomy writes them. Unknown labels stay as they are."""
    spoken = {group.name: group.spoken for group in taxonomy.groups}

    def meant(name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        known = spoken.get(name, {})
        return tuple(dict.fromkeys(known.get(" ".join(one.split()).casefold(), one) for one in labels))

    return _relabelled(rows, meant)


def _relabelled(rows: Sequence[Row], change: Callable[[str, tuple[str, ...]], tuple[str, ...]]) -> list[Row]:
    return [
        replace(row, labels={name: change(name, labels) for name, labels in row.labels.items()})
        for row in rows
    ]


def learnable(
    taxonomy: Taxonomy, labels: Iterable[Mapping[str, Sequence[str]]], min_rows: int = CLASS_MIN_ROWS
) -> tuple[Taxonomy, list[str]]:
    """What of a taxonomy these labelled rows can teach, and a sentence on each group that they cannot.

    Values with fewer than `min_rows` rows are left out, then groups with fewer than two values. What was
    replaced is a former value of its successor. `labels` are as `read_products` gives them with `taxonomy`.

    Raises:
        ValueError: nothing is left.
    """
    classes = class_lists(labels, min_rows)
    live = {
        group.name: [v for v in group.values if v.is_live and v.value in classes.get(group.name, ())]
        for group in taxonomy.groups
    }
    kept = {name: {value.value for value in values} for name, values in live.items() if len(values) > 1}
    groups = []
    for group in taxonomy.groups:
        if group.name not in kept:
            continue
        above = taxonomy.group(group.parent_group) if group.parent_group in kept else None
        values = []
        for value in live[group.name]:
            parent = above.current(value.parent) if above is not None and value.parent is not None else None
            known = above is not None and parent in kept[above.name]
            values.append(value.model_copy(update={"parent": parent if known else None}))
        old = [*group.former, *(value.value for value in group.values if not value.is_live)]
        former = {one: now for one in old if (now := group.current(one)) in kept[group.name]}
        update = {
            "values": values,
            "former": former,
            "not_learned": longer_names({*kept[group.name], *former}, {*group.not_learned, *group.by_value}),
            "parent_group": above.name if above else None,
        }
        groups.append(Group.model_validate(group.model_dump() | update))
    if not groups:
        raise ValueError(f"no group has two values with {min_rows} labelled rows: there is nothing to learn")
    left_out = [
        f"{name}: {len(values)} of its values have {min_rows} labelled rows, two are needed"
        for name, values in live.items()
        if name not in kept
    ]
    return versioned(groups), left_out


class _Column:
    """One column's values. `values`: those that are kept, the most frequent first → rows."""

    def __init__(self, cells: Sequence[Cell], langs: Sequence[str], separators: str, min_rows: int) -> None:
        self.texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
        whole, split = [_split(cell, "") for cell in cells], [_split(cell, separators) for cell in cells]
        self.multi = _are_several(split)
        self.labels = split if self.multi else whole
        self.rows = sum(1 for labels in self.labels if labels)
        self._several = sum(1 for labels in split if len(labels) > 1)
        self._min_rows = min_rows
        self._langs = Counter(lang for lang, labels in zip(langs, self.labels, strict=True) if labels)
        self.spelt = _spellings(self.labels)
        self._counts = Counter(label.casefold() for labels in self.labels for label in labels)
        self.distinct = len(self._counts)
        kept = [key for key, n in self._counts.items() if n >= min_rows and len(key) <= VALUE_MAX_CHARS]
        ordered = sorted(kept, key=lambda key: (-self._counts[key], self.spelt[key]))
        self.values = {self.spelt[key]: self._counts[key] for key in ordered}

    def judged(self, name: str, is_told: bool) -> Finding:
        """Whether it is a label. `is_told`: somebody says so; it needs two values all the same."""
        why_not = None if is_told else self._why_not()
        if why_not is None and len(self.values) < 2:
            why_not = f"fewer than two values have {self._min_rows} rows"
        return Finding(name, "" if why_not else "label", why_not or self._why())

    def _why_not(self) -> str | None:
        if not self.rows:
            return "empty"
        if self.distinct == self.rows:
            return "every value is different: ids or prose"
        mean_chars = sum(map(len, self.texts)) / max(1, len(self.texts))
        if mean_chars > _LABEL_MEAN_CHARS:
            return f"{mean_chars:.0f} characters on average: prose"
        if self.distinct > _DISTINCT_MAX_SHARE * self.rows:
            return f"{self.distinct:,} different in {self.rows:,} rows: too many to learn"
        if all(_is_number(text) for text in self.spelt.values()):
            return "numbers: a measure"
        if sum("://" in text for text in self.texts) > len(self.texts) / 2:
            return "addresses"
        return None

    def _why(self) -> str:
        left, rows = self.distinct - len(self.values), sum(self._counts.values()) - sum(self.values.values())
        kind = f"multi ({self._several:,} cells have several)" if self.multi else "single"
        rest = f"; {left:,} scarcer or longer ones left out ({rows:,} rows)" if left else ""
        return f"{kind}, {len(self.values):,} values in {self.rows:,} rows{rest}"

    def label_of(self, row: int) -> str | None:
        """The label of a row of a single-choice column, kept or not."""
        return self.spelt[self.labels[row][0].casefold()] if self.labels[row] else None

    def langs(self, of_data: Collection[str]) -> tuple[str, ...]:
        """The languages in which it has labels; none if it has them in all languages of the data."""
        own = {lang for lang in of_data if self._langs[lang] >= self._min_rows}
        return tuple(sorted(own)) if own != set(of_data) else ()


def _split(cell: Cell, separators: str) -> list[str]:
    if isinstance(cell, str):
        return split_cell(cell, separators)
    return split_cell(cell[0], separators) if len(cell) == 1 else list(cell)


def _are_several(labels: Sequence[Sequence[str]]) -> bool:
    """Whether enough of the cells that are not empty have several values."""
    rows, several = sum(1 for of in labels if of), sum(1 for of in labels if len(of) > 1)
    return bool(rows) and several / rows >= _MULTI_MIN_SHARE


def _spellings(labels: Sequence[Sequence[str]]) -> dict[str, str]:
    """Casefolded → the commonest way to write it."""
    ways: dict[str, Counter[str]] = defaultdict(Counter)
    for of_row in labels:
        for one in of_row:
            ways[one.casefold()][one] += 1
    return {key: max(counter, key=lambda way: (counter[way], way)) for key, counter in ways.items()}


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def _why_not_offered(name: str, asked: Columns, roles: Columns) -> str:
    if asked.labels is not None:
        return "not among --labels"
    return "its name says that it is none" if name in NOT_GROUPS else f"the labels are in {roles.labels_from}"


def _role(name: str, role: str, column: _Column, asked: Columns) -> Finding:
    is_told = getattr(asked, role) is not None
    if role in _TEXTS and not is_told and column.rows > _TEXT_MAX_ROWS * column.distinct:
        why = f"{column.distinct:,} different in {column.rows:,} rows: it tells of a class, not a product"
        return Finding(name, "", f"{why}; `--{role} {name}` to use it all the same")
    return Finding(name, role, "as told" if is_told else "by its name")


def _taxonomy(
    columns: Mapping[str, _Column], findings: list[Finding], langs: Sequence[str], min_rows: int
) -> tuple[Taxonomy, list[Finding]]:
    """Of the columns that are labels. Raises ValueError if there is none."""
    labels = {finding.column for finding in findings if finding.role == "label"}
    found = {name: column for name, column in columns.items() if name in labels}
    if not found:
        reasons = "; ".join(f"{finding.column}: {finding.why}" for finding in findings if not finding.role)
        raise ValueError(f"there is nothing to learn, as no column is a label: {reasons}")
    parents = _parents(found)
    under = {name: f"; under {parent}" for name, (parent, _) in parents.items()}
    findings = [replace(one, why=f"{one.why}{under.get(one.column, '')}") for one in findings]
    of_data = {lang for lang, rows in Counter(langs).items() if lang and rows >= min_rows}
    made = (_group(name, column, parents.get(name, (None, {})), of_data) for name, column in found.items())
    return versioned(made), findings


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
    """Child value → its commonest parent, if that is kept; None if the commonest is too often wrong."""
    pairs: dict[str, Counter[str]] = defaultdict(Counter)
    for row in range(len(child.labels)):
        below, over = child.label_of(row), parent.label_of(row)
        if below in child.values and over is not None:
            pairs[below][over] += 1
    total = sum(sum(counter.values()) for counter in pairs.values())
    # Where few of the child's rows have the parent too, agreement says little.
    if total < 0.5 * child.rows or not total:
        return None
    right = sum(max(counter.values()) for counter in pairs.values())
    by_chance = max(sum((Counter(counter) for counter in pairs.values()), Counter()).values())
    if right - by_chance < _PARENT_MIN_GAIN * (total - by_chance) or total == by_chance:
        return None
    commonest = {below: counter.most_common(1)[0][0] for below, counter in pairs.items()}
    return {below: over for below, over in commonest.items() if over in parent.values}


def _group(
    name: str, column: _Column, parent: tuple[str | None, dict[str, str]], langs_of_data: Collection[str]
) -> Group:
    """With what differs from the defaults alone, so that a file of it is short."""
    over, above = parent
    known: dict[str, object] = {
        "langs": column.langs(langs_of_data),
        "parent_group": over,
        "not_learned": longer_names(column.values, column.spelt.values()),
    }
    values = [
        {"value": value} | ({"parent": above[value]} if value in above else {}) for value in column.values
    ]
    kind = "multi" if column.multi else "single"
    known = {key: one for key, one in known.items() if one}
    return Group.model_validate({"name": name, "kind": kind, **known, "values": values})
