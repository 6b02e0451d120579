"""The HTTP API: tag on demand, look up by product or by tag, health. Runs under Serve or any ASGI server."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from tagstream.api.admission import BodyLimit, Credentials, Gate, RateLimit
from tagstream.core.decide import Deciders, decide
from tagstream.core.errors import Overloaded, TaggingFailed, TagstreamError, Unavailable
from tagstream.core.events import ImageRef, ImageUse, ProductTags, Tag
from tagstream.core.language import wanted_languages
from tagstream.core.ports import Images, MicroBatch, Picture, Tagger, TagStore, TextFields
from tagstream.core.rules import NO_RULES, Rules
from tagstream.core.taxonomy import Taxonomy

#: Asks the stream's consumers how they are: (ready, details).
Readiness = Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]


async def _wanted(
    response: Response,
    lang: Annotated[str | None, Query(max_length=35, description="a language tag, such as zh")] = None,
    accept_language: Annotated[str | None, Header()] = None,
) -> tuple[str, ...]:
    """The languages that names are wanted in; `lang` goes before the header."""
    response.headers["Vary"] = "Accept-Language"
    return wanted_languages(accept_language, lang)


Wanted = Annotated[tuple[str, ...], Depends(_wanted)]


class TagRequest(BaseModel):
    """A product to be tagged now; nothing is stored."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(default="", max_length=10_000)
    description: str | None = Field(default=None, max_length=100_000)
    brand: str | None = Field(default=None, max_length=1000)
    lang: str | None = Field(default=None, max_length=35)
    attributes: dict[str, str] = Field(default_factory=dict)
    image: ImageRef | None = None


@dataclass(frozen=True, slots=True)
class NamedTag(Tag):
    """A tag with the names of its group and value, in the wanted language where there is one."""

    group_name: str | None = None
    name: str | None = None


class TagResponse(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    model_generation: int
    taxonomy_version: str
    image: ImageUse
    image_reason: str
    tags: tuple[NamedTag, ...]


class NamedProductTags(ProductTags):
    tags: tuple[NamedTag, ...]


class TaggedProduct(BaseModel):
    product_id: str
    score: float


#: An inline picture of 8 MiB in base64, and the rest of a product.
BODY_MAX_BYTES = 12 * 2**20
#: So long a model that was silent is not asked for names again.
_NAMES_RETRY_S = 10.0


def build_api(
    tagger: Tagger,
    store: TagStore,
    images: Images,
    readiness: Readiness,
    key_hashes: frozenset[str],
    *,
    rules: Rules = NO_RULES,
    requests_per_s: float = 50.0,
    body_max_bytes: int = BODY_MAX_BYTES,
) -> FastAPI:
    """The application.

    Args:
        key_hashes: SHA-256 (hex) of each bearer key that is let in; none: only callers on the loopback
            interface are. A plain hash is enough for a key of 256 random bits: there is nothing to guess.
        requests_per_s: of one key, or of one address without a key; 429 beyond.
        body_max_bytes: 413 beyond.
    """
    app = FastAPI(title="tagstream", version="1", description="Tags of products, and products by tag.")
    app.add_middleware(BodyLimit, max_bytes=body_max_bytes)
    gate = Gate(key_hashes, RateLimit(requests_per_s))
    deciders = Deciders(tagger, rules)
    _add_error_answers(app)
    app.include_router(_tagging(tagger, images, deciders), dependencies=[Depends(gate.admit)])
    app.include_router(_look_up(store, Names(deciders)), dependencies=[Depends(gate.admit)])
    app.include_router(_health(readiness, gate))
    return app


def _add_error_answers(app: FastAPI) -> None:
    @app.exception_handler(Unavailable)
    @app.exception_handler(Overloaded)
    async def try_again(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> Response:
        """What is wrong, without the values: they may be large, private, or nothing that JSON can say."""
        complaints = [{name: one[name] for name in ("type", "loc", "msg")} for one in error.errors()]
        return Response(json.dumps({"detail": complaints}), 422, media_type="application/json")

    @app.exception_handler(TaggingFailed)
    async def refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)


def _tagging(tagger: Tagger, images: Images, deciders: Deciders) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/tag", response_model_exclude_none=True)
    def tag(product: TagRequest, wanted: Wanted) -> TagResponse:
        """Tags for a product that need not exist. Nothing is stored or published.

        With `lang` or `Accept-Language` they have names; what has none in that language is named by itself.
        """
        picture = images.fetch([product.image])[0] if product.image else Picture("none")
        if not product.title.strip() and picture.encoded is None:
            raise HTTPException(
                422, f"neither a title nor a usable picture: {picture.reason or 'nothing to tag'}"
            )
        text = TextFields.of(product)
        scores = tagger.tag(MicroBatch([text], [picture.encoded]))
        decider = deciders.of(scores.model_version)
        [tags], [image] = decide(decider, [text], [picture], scores)
        return TagResponse(
            model_version=scores.model_version,
            model_generation=scores.model_generation,
            taxonomy_version=decider.taxonomy.taxonomy_version,
            image=image,
            image_reason=picture.reason,
            tags=_named(tags, decider.taxonomy, wanted),
        )

    return router


class Names:
    """The taxonomies that name stored tags."""

    def __init__(self, deciders: Deciders) -> None:
        self._deciders = deciders
        self._silent_until_s: dict[str, float] = {}

    def taxonomy(self, model_version: str) -> Taxonomy | None:
        """None while the model is gone or silent. That is remembered for some seconds: asking takes as long
        as the tagger's timeout, and every browser names a language."""
        is_known = model_version in self._deciders
        if not is_known and time.monotonic() < self._silent_until_s.get(model_version, 0.0):
            return None
        # One request asks; those that come meanwhile do without names.
        self._silent_until_s[model_version] = time.monotonic() + _NAMES_RETRY_S
        try:
            return self._deciders.of(model_version).taxonomy
        except TagstreamError:
            self._silent_until_s[model_version] = time.monotonic() + _NAMES_RETRY_S
            return None


def _look_up(store: TagStore, names: Names) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/products/{product_id:path}/tags", response_model_exclude_none=True)
    def product_tags(product_id: str, wanted: Wanted) -> NamedProductTags:
        """The tags of a product; with `lang` or `Accept-Language`, with names."""
        standing = store.get([product_id])[0]
        if standing is None or standing.deleted or standing.product is None:
            raise HTTPException(404, "no tags for this product")
        product = standing.product
        # The tags are in the store: that the model is gone or silent must not hide them.
        taxonomy = names.taxonomy(product.model_version) if wanted else None
        return NamedProductTags.model_validate(
            {**dict(product), "tags": _named(product.tags, taxonomy, wanted)}
        )

    @router.get("/v1/tags/{group}/{value}/products")
    def products(
        group: str, value: str, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[TaggedProduct]:
        """Products with this tag, the highest score first."""
        return [TaggedProduct(product_id=p, score=s) for p, s in store.find(group, value, limit)]

    return router


def _health(readiness: Readiness, gate: Gate) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz(request: Request, given: Credentials) -> JSONResponse:
        """The stream works: a model is loaded, and the consumers reach Kafka, the store and the model. The
        reason why not is shown to those who have the key."""
        ready, details = await readiness()
        shown = details if gate.lets_in(request, given) else {}
        return JSONResponse({"ready": ready, **shown}, 200 if ready else 503)

    return router


def _named(tags: Iterable[Tag], taxonomy: Taxonomy | None, wanted: Sequence[str]) -> tuple[NamedTag, ...]:
    """The tags with names, if any language is wanted; what the taxonomy does not know is named by itself."""
    if not wanted:
        return tuple(NamedTag(tag.group, tag.value, tag.score, tag.source) for tag in tags)
    groups = {group.name: group for group in taxonomy.groups} if taxonomy else {}
    named = []
    for tag in tags:
        group = groups.get(tag.group)
        group_name = group.name_in(wanted) if group else tag.group
        name = group.value_name_in(tag.value, wanted) if group else tag.value
        named.append(NamedTag(tag.group, tag.value, tag.score, tag.source, group_name, name))
    return tuple(named)
