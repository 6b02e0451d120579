"""A child of a model version: the same weights, another taxonomy. Takes seconds and no data.

An edited taxonomy (`tagstream taxonomy`) can change without training: thresholds, names, languages, parents,
and which values are given at all. Every column stays in its place:

    renamed    the column gives the new value; the old one is a former value, still found in texts and events
    merged     the column stays and its score counts for the successor
    retired    the column stays and is never given
    added      cannot be given: no column has learned it; it is left out and reported

A value for which the file states no threshold keeps the one that the model was released with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tagstream.core.errors import IncompatibleModel
from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned
from tagstream.model.tagger import read_stored, save
from tagstream.model.version.format import Manifest, read_manifest, read_title_hashes
from tagstream.text.mentions import longer_names


def derive(
    base: Path, edited: Taxonomy, root: Path, created: datetime, code_revision: str | None = None
) -> tuple[Path, list[str]]:
    """Write `root/<base's version>-<taxonomy's hash>`; returns it, and a sentence for each part of `edited`
    that was left out.

    Raises:
        IncompatibleModel: `base` is damaged, `edited` lacks one of its groups or values, or nothing differs.
        FileExistsError: this child is there already.
    """
    manifest = read_manifest(base)
    stored = read_stored(base)
    taxonomy, left_out = relabelled(stored.members.taxonomy, edited)
    if taxonomy.content_hash() == stored.members.taxonomy.content_hash():
        raise IncompatibleModel(f"{base}: the taxonomy changes nothing that this model gives")
    parent = manifest.model_version
    child = Manifest(
        model_version=f"{parent}-{taxonomy.taxonomy_version[:6]}",
        dataset_id=manifest.dataset_id,
        parent=parent,
        code_revision=code_revision,
        created=created.isoformat(),
    )
    metrics = json.loads((base / "metrics.json").read_bytes())
    folder = root / child.model_version
    save(
        folder,
        replace(stored, members=replace(stored.members, taxonomy=taxonomy)),
        child,
        metrics={**metrics, "measured_on": metrics.get("measured_on", parent)},
        card=_card((base / "README.md").read_text(encoding="utf-8"), child.model_version, parent),
        evaluation_spec=json.loads((base / "evaluation_spec.json").read_bytes()),
        training_titles=read_title_hashes(base, "training"),
        validation_titles=read_title_hashes(base, "validation"),
    )
    return folder, left_out


def relabelled(base: Taxonomy, edited: Taxonomy) -> tuple[Taxonomy, list[str]]:
    """`edited` over the columns of `base`, and a sentence for each part of it that has no column. Raises
    IncompatibleModel where a group or value of `base` is missing, or a group's kind differs."""
    ours = {group.name: group for group in edited.groups}
    for group in base.groups:
        _check(group, ours.get(group.name))
    labels = {group.name: _labels(group, ours[group.name]) for group in base.groups}
    groups = [_group(group, ours, labels) for group in base.groups]
    left_out = [f"{name}: a group that the model has not learned" for name in ours if name not in labels]
    left_out += [
        f"{name}={value.value}: a value that the model has not learned"
        for name, columns in labels.items()
        for value in ours[name].values
        if value.is_live and value.value not in columns
    ]
    return versioned(groups), left_out


def _check(group: Group, edited: Group | None) -> None:
    if edited is None:
        raise IncompatibleModel(f"the taxonomy has no group {group.name}; groups stay, retire their values")
    if edited.kind != group.kind:
        raise IncompatibleModel(f"{group.name} is {group.kind}; only training can make it {edited.kind}")
    for value in group.values:
        if value.value not in edited.by_value and value.value not in edited.former:
            raise IncompatibleModel(
                f"the taxonomy has no value {group.name}={value.value}; values leave only by being replaced "
                "or retired"
            )


def _labels(group: Group, edited: Group) -> list[str]:
    """What each column is called now: a new name goes to the first column that it replaces."""
    own = {value.value for value in group.values}
    labels: list[str] = []
    for value in group.values:
        now = edited.current(value.value)
        labels.append(value.value if now is None or now in own or now in labels else now)
    return labels


def _group(base: Group, ours: Mapping[str, Group], labels: Mapping[str, list[str]]) -> Group:
    own, edited = labels[base.name], ours[base.name]
    above = ours[edited.parent_group] if edited.parent_group and edited.parent_group in labels else None
    values = []
    for column, label in zip(base.values, own, strict=True):
        value = _value(column, label, edited)
        parent = above.current(value.parent) if above is not None and value.parent is not None else None
        known = above is not None and parent in labels[above.name]
        values.append(value.model_copy(update={"parent": parent if known else None}))
    former = {
        old: now
        for old in (*base.former, *base.by_value, *edited.former, *edited.by_value)
        if old not in own and (now := _current(old, base, edited)) is not None and now in own
    }
    added = longer_names({*own, *former}, {*edited.not_learned, *edited.by_value})
    update = {
        "values": values,
        "former": former,
        "not_learned": tuple(sorted({*base.not_learned, *added} - {*own, *former})),
        "parent_group": above.name if above else None,
    }
    return Group.model_validate(edited.model_dump() | update)


def _current(old: str, base: Group, edited: Group) -> str | None:
    known = old if old in edited.by_value or old in edited.former else base.former.get(old, old)
    return edited.current(known)


def _value(column: Value, label: str, edited: Group) -> Value:
    """The column's value under its new label, which `edited` may know as a former value only."""
    stated, now = edited.by_value.get(label, column), edited.current(label)
    kept = {} if "threshold" in stated.model_fields_set else {"threshold": column.threshold}
    ends = {"replaced_by": None if now == label else now, "retired": now is None}
    return stated.model_copy(update={**kept, **ends})


def _card(base_card: str, model_version: str, parent: str) -> str:
    return f"""{base_card.rstrip()}

## Derived

`{model_version}` has the weights of `{parent}` under another taxonomy: other thresholds or names, merged or
retired values. The figures above were measured before.
"""
