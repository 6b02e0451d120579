"""The HTTP API over in-memory twins."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tagstream.api.admission import RateLimit
from tagstream.api.app import build_api
from tagstream.core.errors import Overloaded, TaggingFailed, Unavailable
from tagstream.core.events import ProductTags, Tag
from tagstream.core.ports import Write
from tagstream.core.taxonomy import Taxonomy
from tests.support.memory import BROKEN_PICTURE, MemoryImages, MemoryTagger
from tests.support.memory_store import MemoryStore

TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "t",
        "groups": [
            {
                "name": "colour",
                "langs": ["en"],
                "names": {"zh": "颜色", "de": "Farbe"},
                "values": [{"value": "Red", "names": {"zh": "红色", "zh-TW": "紅色", "de": "Rot"}}],
            }
        ],
    }
)
KEY = {"Authorization": "Bearer right"}


class Api:
    def __init__(self, api_key: str | None = "right", host: str = "203.0.113.9", **bounds: Any) -> None:
        self.tagger = MemoryTagger(TAXONOMY)
        self.store = MemoryStore()
        self.store.initialise()
        self.ready = True
        hashes = frozenset({hashlib.sha256(api_key.encode()).hexdigest()} if api_key else ())
        app = build_api(self.tagger, self.store, MemoryImages(), self._readiness, hashes, **bounds)
        self.client = TestClient(app, client=(host, 1))

    async def _readiness(self) -> tuple[bool, dict[str, Any]]:
        return self.ready, {"reason": "because"}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}])
def test_without_the_key_nothing_is_answered(api: Api, headers: dict[str, str]) -> None:
    assert api.client.post("/v1/tag", json={"title": "x"}, headers=headers).status_code == 401
    assert api.client.get("/v1/products/p/tags", headers=headers).status_code == 401
    assert api.client.get("/v1/tags/g/v/products", headers=headers).status_code == 401


def test_without_a_key_set_only_loopback_is_served() -> None:
    assert Api(None).client.post("/v1/tag", json={"title": "x"}).status_code == 403
    assert Api(None, "127.0.0.1").client.post("/v1/tag", json={"title": "x"}).status_code == 200
    assert Api(None, "::1").client.post("/v1/tag", json={"title": "x"}).status_code == 200


def test_health_needs_no_key_and_readiness_says_why_to_those_who_have_it(api: Api) -> None:
    assert api.client.get("/healthz").status_code == 200
    assert api.client.get("/readyz").status_code == 200
    api.ready = False
    answer = api.client.get("/readyz", headers=KEY)
    assert (answer.status_code, answer.json()["reason"]) == (503, "because")
    answer = api.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})


def test_a_product_is_tagged_on_demand(api: Api) -> None:
    image = {"data": base64.b64encode(b"picture").decode()}
    answer = api.client.post("/v1/tag", json={"title": "x", "image": image}, headers=KEY).json()
    assert answer["tags"] == [{"group": "colour", "value": "Red", "score": 0.9, "source": "model"}]
    assert (answer["model_version"], answer["image"]) == ("memory", "used")


def test_an_unusable_picture_is_told_and_the_title_is_tagged(api: Api) -> None:
    answer = api.client.post("/v1/tag", json={"title": "x", "image": {"data": "!"}}, headers=KEY).json()
    assert (answer["image"], answer["image_reason"]) == ("unusable", "not base64")
    assert answer["tags"]


def test_no_title_and_a_picture_that_does_not_decode_give_no_model_tags_as_on_the_stream(api: Api) -> None:
    image = {"data": base64.b64encode(BROKEN_PICTURE).decode()}
    answer = api.client.post("/v1/tag", json={"image": image}, headers=KEY).json()
    assert (answer["image"], answer["tags"]) == ("unusable", [])


@pytest.mark.parametrize("body", [{}, {"title": " "}, {"image": {"data": "!"}}, {"titel": "x"}, {"title": 3}])
def test_a_request_with_nothing_to_tag_is_422(api: Api, body: dict[str, object]) -> None:
    assert api.client.post("/v1/tag", json=body, headers=KEY).status_code == 422


@pytest.mark.parametrize(
    ("error", "status"), [(Unavailable("a"), 503), (Overloaded("b"), 503), (TaggingFailed("c"), 422)]
)
def test_the_class_of_an_error_is_its_status(api: Api, error: Exception, status: int) -> None:
    api.tagger.faults.append(error)
    answer = api.client.post("/v1/tag", json={"title": "x"}, headers=KEY)
    assert (answer.status_code, answer.json()["detail"]) == (status, str(error))


def test_products_are_found_by_id_and_by_tag(api: Api) -> None:
    product_id = "a/b c"
    api.store.put([Write(tagged(product_id), 0), Write(tagged("gone"), 0)])
    api.store.put([Write(tagged("gone"), 1, deleted=True)])
    found = api.client.get("/v1/products/a/b c/tags", headers=KEY).json()
    assert ProductTags.model_validate(found) == tagged(product_id)
    assert api.client.get("/v1/products/gone/tags", headers=KEY).status_code == 404
    assert api.client.get("/v1/tags/colour/Red/products", headers=KEY).json() == [
        {"product_id": product_id, "score": 0.5}
    ]
    assert api.client.get("/v1/tags/colour/Red/products?limit=0", headers=KEY).status_code == 422


def tagged(product_id: str) -> ProductTags:
    return ProductTags.model_validate(
        {
            "product_id": product_id,
            "revision": 1,
            "event_version": 1,
            "model_version": "m",
            "model_generation": 1,
            "taxonomy_version": "t",
            "tagged_at": "2026-01-01T00:00:00Z",
            "image": "none",
            "tags": [Tag("colour", "Red", 0.5, "model")],
        }
    )


@pytest.mark.parametrize(
    ("accept_language", "lang", "group_name", "name"),
    [
        ("zh", None, "颜色", "红色"),
        ("zh-CN,zh;q=0.9,en;q=0.8", None, "颜色", "红色"),
        ("zh-Hant-TW", None, "颜色", "红色"),
        ("ZH-tw", None, "颜色", "紅色"),
        ("de;q=0.5, zh;q=0.7", None, "颜色", "红色"),
        ("zh;q=0, de;q=0.001", None, "Farbe", "Rot"),
        ("fr, de;q=0.1", None, "Farbe", "Rot"),
        ("en, zh;q=0.5", None, "colour", "Red"),
        ("fr", None, "colour", "Red"),
        ("zh;q=2, ;;, de ; q=0.3, *", None, "Farbe", "Rot"),
        ("zh", "de", "Farbe", "Rot"),
        (None, "zh_CN", "颜色", "红色"),
        (None, "tlh", "colour", "Red"),
    ],
)
def test_names_come_in_the_wanted_language(
    api: Api, accept_language: str | None, lang: str | None, group_name: str, name: str
) -> None:
    """The group is English, so it and its values are their own English names."""
    headers = KEY | ({"Accept-Language": accept_language} if accept_language else {})
    params = {"lang": lang} if lang else {}
    api.store.put([Write(tagged("p"), 0)])
    answers = [
        api.client.post("/v1/tag", json={"title": "x"}, headers=headers, params=params),
        api.client.get("/v1/products/p/tags", headers=headers, params=params),
    ]
    for answer in answers:
        [tag] = answer.json()["tags"]
        assert (tag["value"], tag["group_name"], tag["name"]) == ("Red", group_name, name)
        assert answer.headers["Vary"] == "Accept-Language"


def test_stored_tags_are_shown_although_their_names_cannot_be_had(api: Api) -> None:
    asked = []

    def silent(model_version: str) -> Taxonomy:
        asked.append(model_version)
        raise Unavailable("no replica answers")

    api.tagger.taxonomy = silent  # type: ignore[method-assign]
    api.store.put([Write(tagged("p"), 0)])
    for _ in range(3):
        [tag] = api.client.get("/v1/products/p/tags?lang=zh", headers=KEY).json()["tags"]
        assert (tag["group_name"], tag["name"]) == ("colour", "Red")
    assert len(asked) == 1  # a silent tagger takes its whole timeout to say so


def test_a_tag_of_another_taxonomy_is_named_by_itself(api: Api) -> None:
    stored = tagged("p").model_copy(
        update={"tags": (Tag("colour", "Mauve", 0.5, "model"), Tag("size", "XL", 1.0, "event"))}
    )
    api.store.put([Write(stored, 0)])
    tags = api.client.get("/v1/products/p/tags?lang=zh", headers=KEY).json()["tags"]
    assert [(tag["group_name"], tag["name"]) for tag in tags] == [("颜色", "Mauve"), ("size", "XL")]


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    api = Api(requests_per_s=1)
    answers = [api.client.get("/v1/products/p/tags", headers=KEY) for _ in range(4)]
    assert [answer.status_code for answer in answers[:2]] == [404, 404]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_wrong_keys_are_limited_by_address_and_do_not_use_up_the_right_one_s_share() -> None:
    api = Api(requests_per_s=1)
    wrong = [
        api.client.get("/v1/products/p/tags", headers={"Authorization": f"Bearer {n}"}).status_code
        for n in range(5)
    ]
    assert wrong[:2] == [401, 401]
    assert wrong[-1] == 429
    assert api.client.get("/v1/products/p/tags", headers=KEY).status_code == 404


def test_a_bucket_fills_again_as_time_passes() -> None:
    now = [0.0]
    limit = RateLimit(2.0, lambda: now[0])
    assert [limit.wait_s("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert limit.wait_s("b") == 0
    now[0] = 0.5
    assert limit.wait_s("a") == 0


@pytest.mark.parametrize("stated", [False, True])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(stated: bool) -> None:
    """Straight to the application: the test client reads a whole body before it sends any."""
    chunks_read = 0
    sent: list[Any] = []
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer right")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/tag",
        "query_string": b"",
        "headers": [*headers, (b"content-length", b"10000")] if stated else headers,
        "client": ("203.0.113.9", 1),
    }

    async def receive() -> dict[str, Any]:
        nonlocal chunks_read
        chunks_read += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": chunks_read < 100}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Api(body_max_bytes=1000).client.app(scope, receive, send))
    assert [m["status"] for m in sent if m["type"] == "http.response.start"] == [413]
    assert chunks_read == (0 if stated else 11), "1,000 bytes fit, the next chunk is the last one read"


def test_what_json_cannot_say_is_a_clear_refusal(api: Api) -> None:
    for body in (b'{"title": NaN}', b'{"title": "\\ud800"}', b'{"title": 5}', b"{"):
        answer = api.client.post("/v1/tag", content=body, headers={**KEY, "Content-Type": "application/json"})
        assert answer.status_code == 422, body
        assert "input" not in answer.json()["detail"][0]
