r"""Rules: what a shop knows for certain about its own titles. They overrule everything but a person.

    {"rules": [{"field": "title", "pattern": "\\bgore-?tex\\b", "group": "material", "value": "Gore-Tex"},
               {"field": "title", "pattern": "加绒", "group": "season", "value": "Winter", "lang": "zh"}]}

A pattern is one of Python's `re`, searched without regard to case in the first `TEXT_MAX_CHARS` characters of
the field, after NFKC. `re` cannot be interrupted, so a pattern that could make a hostile title expensive is
refused when the file is read: the ways in which it can match from one place are counted, a repeat of n to m
as m − n + 1 of them, and a repeat without end over something that can match in several ways as infinitely
many. Two repeats without end in a row are the most that pass.

If the taxonomy has the group, a rule's value must be one of its spellings; else the rule gives no tag.
Retired values do not come back through rules. In a single-choice group the first rule in the file decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tagstream.core.errors import BadSettings
from tagstream.core.ports import TextFields

TEXT_MAX_CHARS = 256
PATTERN_MAX_CHARS = 512
#: Of one pattern, from one place in the text: some tenths of a second over all places at worst.
_WAYS_MAX = 2 * (TEXT_MAX_CHARS + 1) ** 2
#: A repeated choice costs more than its ways: every one of them is gone through from every place.
_REPEATED_CHOICE = 32


class Rule(BaseModel):
    """A tag that is given where the pattern is found in the field. `lang`: only in texts of that language."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    field: Literal["title", "brand", "description"]
    pattern: str = Field(min_length=1, max_length=PATTERN_MAX_CHARS)
    group: str = Field(min_length=1, max_length=64)
    value: str = Field(min_length=1, max_length=64)
    lang: str | None = Field(default=None, pattern=r"^[a-z]{2,8}$")

    @field_validator("pattern")
    @classmethod
    def _is_cheap(cls, pattern: str) -> str:
        try:
            parsed = _parser.parse(pattern, re.IGNORECASE)
            re.compile(pattern, re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        if _ways(parsed) > _WAYS_MAX:
            raise ValueError(f"{pattern!r} can take too long: repeats in or beside repeats or alternatives")
        return pattern

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.IGNORECASE)

    def fits(self, text: TextFields, lang: str) -> bool:
        """Whether the rule applies to this product. `lang`: the language of its text."""
        content = getattr(text, self.field)
        if not content or (self.lang is not None and self.lang != lang):
            return False
        plain = unicodedata.normalize("NFKC", content[:TEXT_MAX_CHARS])
        return self._compiled.search(plain[:TEXT_MAX_CHARS]) is not None


class Rules(BaseModel):
    """All rules of a file, in its order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...] = ()

    @classmethod
    def read(cls, raw: object) -> Rules:
        """Rules from what a JSON or YAML file holds. Raises BadSettings, naming each wrong rule."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            wrong = [
                f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}"
                for each in error.errors(include_input=False)
            ]
            raise BadSettings("; ".join(wrong)) from None

    def __bool__(self) -> bool:
        return bool(self.rules)

    def fitting(self, text: TextFields, lang: str) -> Iterator[tuple[str, str]]:
        """(group, value) of the rules that fit the text, whose language is `lang`."""
        return ((rule.group, rule.value) for rule in self.rules if rule.fits(text, lang))


NO_RULES = Rules()


def _ways(parsed: Any) -> float:
    """In how many ways a parsed pattern can match from one place; an upper bound."""
    ways = 1.0
    for operation, argument in parsed:
        if operation in _REPEATS:
            least, most, body = argument
            each = _ways(body)
            span = TEXT_MAX_CHARS if most is _constants.MAXREPEAT else most
            if body.getwidth()[1] == 0:
                ways *= span * each
            elif each == 1 or span <= 1:
                ways *= max(span - least + 1, 1) * each
            else:
                ways *= _REPEATED_CHOICE * each ** min(span, 64)
        elif operation is _constants.BRANCH:
            ways *= sum(_ways(alternative) for alternative in argument[1])
        elif operation in _GROUPS:
            ways *= _ways(argument[-1])
        elif operation is _constants.GROUPREF_EXISTS:
            ways *= sum(_ways(body) for body in argument[1:] if body is not None)
        ways = min(ways, 1e30)
    return max(ways, 1.0)


_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)
_GROUPS = (_constants.SUBPATTERN, _constants.ATOMIC_GROUP, _constants.ASSERT, _constants.ASSERT_NOT)
