"""The contracts of the topics: what a producer sends, what a reader gets.

    product-events   key product_id   value ProductEvent (JSON); an empty value: the product is gone
    product-tags     key product_id   value ProductTags (JSON); an empty value: no tags any more

Unknown fields are ignored; a higher major `schema_version` is refused, because its meaning is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

SCHEMA_VERSION = "1.0"
PRODUCT_ID_MAX_BYTES = 256
#: The largest integer that JSON readers in every language, and Lua in the store, keep exactly.
EVENT_VERSION_MAX = 2**53 - 1

ImageUse = Literal["used", "none", "unavailable", "unusable"]
TagSource = Literal["model", "extracted", "event", "rule", "person"]


def _major_minor(value: object) -> object:
    return f"{value}.0" if isinstance(value, int) and not isinstance(value, bool) else value


SchemaVersion = Annotated[str, BeforeValidator(_major_minor), Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$")]


class ImageRef(BaseModel):
    """A picture: inline (`data`, base64 of the encoded file) or by `url` (https, http or file)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str | None = Field(default=None, max_length=4096)
    data: str | None = None


class ProductEvent(BaseModel):
    """One change of one product, as its producer sends it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion
    event_id: str = Field(min_length=1, max_length=256)
    type: Literal["upsert", "delete"]
    product_id: str = Field(min_length=1)
    event_version: int | None = Field(default=None, ge=0, le=EVENT_VERSION_MAX, strict=True)
    occurred_at: AwareDatetime
    title: str = ""
    description: str | None = None
    brand: str | None = None
    lang: str | None = Field(default=None, max_length=35)
    attributes: dict[str, str] = Field(default_factory=dict)
    image: ImageRef | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded record. `order` says which of two events of one product is newer.

    `source_offset` is the record's offset; of a replayed record, its first offset.
    """

    product: ProductEvent
    event_version: int
    source_offset: int

    @property
    def order(self) -> tuple[int, int]:
        return self.event_version, self.source_offset

    @property
    def deletes(self) -> bool:
        return self.product.type == "delete"


@dataclass(frozen=True, slots=True)
class Tag:
    """One decision about a product: `value` in `group`, with the score that led to it.

    Not a BaseModel: about ten are made for every event, and a dataclass is twice as fast.
    """

    group: str
    value: str
    score: float
    source: TagSource


class ProductTags(BaseModel):
    """All present tags of a product. `revision` grows by one with every applied change."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    schema_version: str = SCHEMA_VERSION
    product_id: str
    revision: int
    event_version: int
    model_version: str
    model_generation: int
    taxonomy_version: str
    tagged_at: AwareDatetime
    image: ImageUse
    tags: tuple[Tag, ...]
