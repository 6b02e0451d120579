"""Odd requests to the API: each is answered, in JSON, with a status that says whose fault it is."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from mutation import ODD, Mutator
from specimens import dumped, seeds
from verdicts import HANG_S, TAXONOMY, is_json

from tagstream.api.app import build_api
from tests.support.memory import MemoryImages, MemoryTagger
from tests.support.memory_store import MemoryStore

_JSON = {"Content-Type": "application/json"}
ALLOWED = {200, 307, 400, 404, 405, 413, 422}
_BODIES: list[dict[str, Any]] = [
    {"title": "Puma Men Navy Blue Running Shoes"},
    {"title": "跑鞋", "lang": "zh", "brand": "彪马", "attributes": {"颜色": "藏青色"}},
    {"title": "", "image": {"data": "AAAA"}, "description": "d"},
]


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    body: bytes = b""


@dataclass
class Answers:
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[tuple[Asked, str]] = field(default_factory=list)


def fuzz_api(requests: int, seed: int) -> Answers:
    return ask(list(questions(requests, seed)))


def questions(requests: int, seed: int) -> list[Asked]:
    rng = random.Random(seed)
    mutator = Mutator(seeds(), rng)
    return [_question(mutator, rng) for _ in range(requests)]


def ask(asked: list[Asked]) -> Answers:
    """Each once, of an API over twins, as a caller on loopback."""
    return asyncio.run(_ask(asked))


async def _ask(asked: list[Asked]) -> Answers:
    answers = Answers()
    transport = httpx.ASGITransport(_app(), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        for one in asked:
            started_s = time.perf_counter()
            try:
                request = client.build_request(one.method, one.path, content=one.body, headers=_JSON)
            except (httpx.InvalidURL, UnicodeError, ValueError):
                answers.statuses[0] += 1  # cannot be sent at all
                continue
            try:
                answer = await client.send(request)
            except Exception as error:
                answers.failures.append((one, f"{type(error).__name__}: {error}"[:300]))
                continue
            took_s = time.perf_counter() - started_s
            if answer.status_code not in ALLOWED or not (is_json(answer.content) or not answer.content):
                answers.failures.append((one, f"status {answer.status_code}: {answer.text[:200]}"))
            elif took_s > HANG_S:
                answers.failures.append((one, f"hang: {took_s:.1f} s"))
            else:
                answers.statuses[answer.status_code] += 1
    return answers


def _app() -> Any:
    store = MemoryStore()
    store.initialise()

    async def readiness() -> tuple[bool, dict[str, Any]]:
        return True, {}

    given: dict[str, Any] = {
        "tagger": MemoryTagger(TAXONOMY),
        "store": store,
        "images": MemoryImages(),
        "readiness": readiness,
    }
    return build_api(**given, key_hashes=frozenset(), requests_per_s=1e9)


def _question(mutator: Mutator, rng: random.Random) -> Asked:
    way = rng.random()
    if way < 0.4:
        return Asked("POST", "/v1/tag", dumped(mutator.fields(rng.choice(_BODIES))))
    if way < 0.6:
        return Asked("POST", "/v1/tag", mutator.bytes(json.dumps(rng.choice(_BODIES)).encode()))
    if way < 0.65:
        return Asked("POST", "/v1/tag", mutator.next().value or b"")
    odd = _segment(rng)
    if way < 0.8:
        return Asked("GET", f"/v1/products/{odd}/tags")
    limit = quote(str(rng.choice(ODD)), errors="replace")[:5000]
    return Asked("GET", f"/v1/tags/{odd}/{_segment(rng)}/products?limit={limit}")


def _segment(rng: random.Random) -> str:
    content = rng.choice(
        [str(rng.choice(ODD)).encode("utf-8", "surrogatepass"), rng.randbytes(9), b"..", b"a/b", b"%"]
    )
    return quote(content[:400], safe="")
