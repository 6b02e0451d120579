"""Records by the contract's own grammar: most are nearly right, which is where the odd corners are."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from mutation import ODD, TOKENS
from specimens import NOW_MS, Specimen

from tagstream.core.events import EVENT_VERSION_MAX

_TEXT = st.text(max_size=60)
_ID = st.text(min_size=1, max_size=40)
_ODD = st.sampled_from(ODD)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["Colour", "颜色", "gender", "GENDER"]) | _TEXT, _TEXT, max_size=5
)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "schema_version": st.sampled_from(["1.0", "1.9", 1]),
    "event_id": _ID,
    "type": st.sampled_from(["upsert", "upsert", "delete"]),
    "product_id": _ID,
    "event_version": st.integers(0, EVENT_VERSION_MAX),
    "occurred_at": st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()),
    "title": _TEXT,
    "description": st.none() | _TEXT,
    "brand": st.none() | _TEXT,
    "lang": st.none() | st.text(max_size=35),
    "attributes": _ATTRIBUTES,
    "image": st.none() | st.fixed_dictionaries({}, optional={"url": _TEXT, "data": _TEXT}),
}
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["event_version", "event_id", "tagstream.first_seen_ms", "x"]),
        st.none() | st.binary(max_size=20),
    ),
    max_size=3,
).map(tuple)
_TIMES = st.sampled_from([NOW_MS, NOW_MS, 0, -1, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)


@st.composite
def specimens(draw: st.DrawFn) -> Specimen:
    """A well-formed event, perhaps with one field amiss, perhaps with a token in its bytes."""
    content = draw(st.fixed_dictionaries(_FIELDS))
    amiss = draw(st.none() | st.sampled_from([*_FIELDS, "another"]))
    if amiss is not None:
        content[amiss] = draw(_ODD | _JSON)
    value = json.dumps(content, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(value)))
        value = value[:at] + draw(st.sampled_from(TOKENS) | st.binary(max_size=8)) + value[at:]
    key = str(content["product_id"]).encode("utf-8", "surrogatepass")
    headers, timestamp_ms = draw(_HEADERS), draw(_TIMES)
    if draw(st.integers(0, 9)) == 0:
        other_key, no_value = draw(st.none() | st.binary(max_size=9)), draw(st.booleans())
        return Specimen(other_key, None if no_value else value, headers, timestamp_ms, "generated")
    return Specimen(key, value, headers, timestamp_ms, "generated")
