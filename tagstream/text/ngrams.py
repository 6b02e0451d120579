"""Text fields → hashed n-grams, the same numbers on every platform. Vectorised over a micro-batch.

    words           runs of letters and digits, casefolded after NFKC; single and in pairs
    characters      2 to 5 within a word, its two edges marked
    Han text        characters, 1 to 3, within a run of Han

Each n-gram is marked by its field and kind and falls into one of `latin_buckets + han_buckets`.

The hash ("prefix64"): characters c[i] are mixed to 64 bits and summed up with powers of an odd base B,
S[i] = sum over k < i of mix(c[k]) * B^k (mod 2^64). A substring's hash is then (S[j] - S[i]) * B^-i,
mixed again with a salt: any n-gram costs two look-ups, whatever its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tagstream.core.language import HAN
from tagstream.core.ports import TextFields
from tagstream.text.fields import FIELD_MAX_CHARACTERS, in_order
from tagstream.text.plain import folded

UInt64Array = npt.NDArray[np.uint64]
_Number = TypeVar("_Number", np.uint64, np.int64)

HASH_NAME = "prefix64"
_BASE = 0x9E3779B97F4A7C15 | 1
_BASE_INVERSE = pow(_BASE, -1, 2**64)
_TOKEN = re.compile(f"[{HAN}]+|[^\\W_{HAN}]+")
_SPACE = 32
_WORD, _CHARACTERS, _HAN_CHARACTERS = 0, 1, 2


class HashedNgrams(BaseModel):
    """What a model version's config.json says about its text features."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hash_name: str = HASH_NAME
    seed: int = 0
    latin_buckets: int = Field(default=2**15, gt=0)
    han_buckets: int = Field(default=2**13, gt=0)
    word_sizes: tuple[int, ...] = (1, 2)
    character_sizes: tuple[int, ...] = (2, 3, 4, 5)
    han_sizes: tuple[int, ...] = (1, 2, 3)
    max_characters: int = FIELD_MAX_CHARACTERS

    @property
    def buckets(self) -> int:
        return self.latin_buckets + self.han_buckets


@dataclass(frozen=True, slots=True)
class Bags:
    """n texts' features: those of text i are at `starts[i]` up to the next start; each bucket comes once."""

    buckets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]  # (n,)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The text that each feature belongs to."""
        lengths = np.diff(np.append(self.starts, len(self.buckets)))
        return np.repeat(np.arange(len(self.starts)), lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def has_text(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a text has any n-gram."""
        return np.bincount(self.rows, minlength=len(self)) > 0

    def noised(self, share: float, rng: np.random.Generator) -> Bags:
        """About `share` of the n-grams silenced, the others the louder for it (inverted dropout)."""
        kept = rng.random(len(self.counts), dtype=np.float32) >= share
        return replace(self, counts=self.counts * kept / np.float32(1 - share))

    def take(self, rows: npt.NDArray[np.int64]) -> Bags:
        """The bags of these texts, in this order."""
        ends = np.append(self.starts[1:], len(self.buckets))
        lengths = (ends - self.starts)[rows]
        starts = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(self.starts[rows] - starts, lengths)
        return Bags(self.buckets[places], self.counts[places], starts)


def featurise(texts: Sequence[TextFields], how: HashedNgrams) -> Bags:
    """The hashed n-grams of each text, about 0.05 ms a title in a micro-batch of 64."""
    segments, rows, fields = _segments(texts, how.max_characters)
    joined = "".join(segments)
    codes = np.frombuffer(joined.encode("utf-32-le", errors="replace"), np.uint32)
    lengths = np.fromiter(map(len, segments), np.int64, len(segments))
    row_of = np.repeat(np.asarray(rows, np.int64), lengths)
    field_of = np.repeat(np.asarray(fields, np.uint64), lengths)
    grams = _Grams(codes)

    found_rows, found_buckets = [], []
    for starts, ends, kind, size in grams.find(how):
        salt = _salt(how.seed, kind, size) + field_of[starts] * np.uint64(0xD6E8FEB86659FD93)
        hashed = _mix(grams.hashes(starts, ends) ^ _mix(salt))
        if kind == _HAN_CHARACTERS:
            bucket = np.uint64(how.latin_buckets) + hashed % np.uint64(how.han_buckets)
        else:
            bucket = hashed % np.uint64(how.latin_buckets)
        found_rows.append(row_of[starts])
        found_buckets.append(bucket.astype(np.int64))
    keys = np.concatenate(found_rows) * how.buckets + np.concatenate(found_buckets)
    unique, counts = np.unique(keys, return_counts=True)
    starts = np.searchsorted(unique, np.arange(len(texts)) * how.buckets)
    return Bags(unique % how.buckets, counts.astype(np.float32), starts.astype(np.int64))


def _segments(texts: Sequence[TextFields], max_characters: int) -> tuple[list[str], list[int], list[int]]:
    """Tokens of each field between spaces, with the row and the field (0 title … 3 description) of each."""
    segments, rows, fields = [], [], []
    for row, text in enumerate(texts):
        for field, content in enumerate(in_order(text, between=" \n ")):
            if content:
                segments.append(f" {' '.join(_TOKEN.findall(folded(content[:max_characters])))} ")
                rows.append(row)
                fields.append(field)
    return segments, rows, fields


class _Grams:
    """Substrings of the joined segments; every segment begins and ends with a space."""

    def __init__(self, codes: npt.NDArray[np.uint32]) -> None:
        self.size = len(codes)
        self.space = codes == _SPACE
        self.han = ((codes >= 0x3400) & (codes <= 0x9FFF)) | ((codes >= 0xF900) & (codes <= 0xFAFF))
        powers, self.inverse_powers = _powers(1 << max(10, self.size.bit_length()))
        self.sums = _running(_mix(codes.astype(np.uint64) + np.uint64(1)) * powers[: self.size])
        self.spaces = _running(self.space.astype(np.int64))
        self.hans = _running(self.han.astype(np.int64))

    def hashes(self, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> UInt64Array:
        result: UInt64Array = (self.sums[ends] - self.sums[starts]) * self.inverse_powers[starts]
        return result

    def find(self, how: HashedNgrams) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int, int]]:
        """(starts, ends, kind, size) of every n-gram, one entry a kind and size."""
        found = []
        word_starts = np.flatnonzero(self.space[:-1] & ~self.space[1:]) + 1
        word_ends = np.flatnonzero(~self.space[:-1] & self.space[1:]) + 1
        latin = ~self.han[word_starts]
        for size in how.word_sizes:
            last = len(word_starts) - size + 1
            if last <= 0:
                continue
            starts, ends = word_starts[:last], word_ends[size - 1 :]
            # Two words of one segment have one space between them, words of two segments have two.
            near = self.spaces[ends] - self.spaces[starts] == size - 1
            keep = near & (self.hans[ends] == self.hans[starts]) & latin[:last]
            found.append((starts[keep], ends[keep], _WORD, size))
        for size in how.character_sizes:
            starts = np.arange(max(0, self.size - size + 1))
            ends = starts + size
            inner = self.spaces[ends - 1] - self.spaces[starts + 1] == 0
            some = self.spaces[ends] - self.spaces[starts] < min(size, 3)
            keep = inner & some & (self.hans[ends] == self.hans[starts])
            found.append((starts[keep], ends[keep], _CHARACTERS, size))
        for size in how.han_sizes:
            starts = np.arange(max(0, self.size - size + 1))
            keep = self.hans[starts + size] - self.hans[starts] == size
            found.append((starts[keep], starts[keep] + size, _HAN_CHARACTERS, size))
        return found


def _running(values: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Sums of everything before each place; uint64 wraps around, as meant."""
    sums = np.zeros(len(values) + 1, values.dtype)
    np.cumsum(values, out=sums[1:])
    return sums


def _mix(values: UInt64Array) -> UInt64Array:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _salt(seed: int, kind: int, size: int) -> np.uint64:
    return np.uint64(seed * 1024 + kind * 64 + size + 1)


@lru_cache(maxsize=32)
def _powers(size: int) -> tuple[UInt64Array, UInt64Array]:
    """B^0 … B^(size-1) and their inverses, mod 2^64. `size` is a power of two, so few are ever made."""
    return _powers_of(_BASE, size), _powers_of(_BASE_INVERSE, size)


def _powers_of(base: int, size: int) -> UInt64Array:
    powers = np.ones(1, np.uint64)
    while len(powers) < size:
        powers = np.concatenate([powers, powers * np.uint64(pow(base, len(powers), 2**64))])
    return powers
