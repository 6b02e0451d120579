"""What the API lets in: which callers, how often, and how large a body may be."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
#: Callers remembered at once; whoever is forgotten starts with a full bucket.
_MAX_CALLERS = 10_000


class RateLimit:
    """A token bucket a caller: `rate_per_s` on the long run, twice as many at once. Any thread."""

    def __init__(self, rate_per_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s = rate_per_s
        self._burst = max(1.0, 2 * rate_per_s)
        self._now_s = now_s
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """0 if the caller may ask now, else the seconds until it may."""
        now_s = self._now_s()
        with self._lock:
            tokens, seen_s = self._buckets.pop(caller, (self._burst, now_s))
            tokens = min(self._burst, tokens + (now_s - seen_s) * self._rate_per_s)
            allowed = tokens >= 1
            self._buckets[caller] = (tokens - 1 if allowed else tokens, now_s)
            if len(self._buckets) > _MAX_CALLERS:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate_per_s


class Gate:
    """Lets callers in by bearer key; without keys, callers on the loopback interface only.

    `key_hashes`: SHA-256 (hex) of each key.
    """

    def __init__(self, key_hashes: frozenset[str], limit: RateLimit) -> None:
        self._key_hashes, self._limit = key_hashes, limit

    def lets_in(self, request: Request, given: Credentials) -> bool:
        """Whether this caller may see anything at all."""
        if not self._key_hashes:
            return _is_loopback(_address(request))
        return given is not None and any(
            hmac.compare_digest(_hash(given), known) for known in self._key_hashes
        )

    async def admit(self, request: Request, given: Credentials) -> None:
        """A FastAPI dependency. Raises HTTPException: 401, 403, or 429 with `Retry-After`."""
        allowed = self.lets_in(request, given)
        # Wrong keys count by address: they must not make buckets of their own.
        caller = _hash(given) if allowed and self._key_hashes and given else _address(request)
        if wait_s := self._limit.wait_s(caller):
            retry_after = {"Retry-After": str(max(1, math.ceil(wait_s)))}
            raise HTTPException(429, "too many requests", retry_after)
        if allowed:
            return
        if not self._key_hashes:
            raise HTTPException(403, "without TAGSTREAM_API_KEY_SHA256 only loopback callers are served")
        raise HTTPException(401, "a valid bearer key is needed", {"WWW-Authenticate": "Bearer"})


def _hash(given: HTTPAuthorizationCredentials) -> str:
    return hashlib.sha256(given.credentials.encode()).hexdigest()


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class BodyLimit:
    """Refuses a body of more than `max_bytes` with 413, before it has been read whole."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated[:20]) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise _TooLarge
            return message

        async def unless_too_large(message: Message) -> None:
            if received <= self._max_bytes:
                await send(message)

        with contextlib.suppress(_TooLarge):  # if the application lets it through
            await self._app(scope, limited, unless_too_large)
        if received > self._max_bytes:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"the body is larger than {self._max_bytes:,} bytes"
        await JSONResponse({"detail": detail}, 413, {"Connection": "close"})(scope, receive, send)


class _TooLarge(Exception):
    """A body without a stated length goes on beyond the limit."""
