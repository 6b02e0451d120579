"""The pictures' encoded bytes: inline base64, files under allowed roots, http and https.

A url comes from whoever may write to the event topic, so it is not trusted: only public addresses are
connected to (the address that was checked, not the name again), redirects are checked like the first url,
bytes and time are limited, files outside the allowed roots do not exist.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from ssl import SSLContext
from typing import Any

import httpcore
import httpx

from tagstream.core.events import ImageRef
from tagstream.core.ports import Picture

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 3
#: Besides 5xx: timed out, too early, too many requests.
_PASSING_STATUS = (408, 425, 429)
_BACKOFF_S = (0.05, 1.0)  # half the first pause between two tries; the longest
_HEADERS = [(b"User-Agent", b"tagstream"), (b"Accept", b"image/*"), (b"Accept-Encoding", b"identity")]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PASSING_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)
#: Pictures fetched at once, over all calls.
_MAX_PARALLEL = 64


class _Unusable(Exception):
    """Another try cannot help."""


class _Passing(Exception):
    """Another try may help."""


class HttpImages:
    """The `Images`. See `core.ports.Images`."""

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout_s: float,
        allow_private: bool = False,
        file_roots: Sequence[str | os.PathLike[str]] = (),
        allow_hosts: Sequence[str] = (),
    ) -> None:
        """
        Args:
            max_bytes, timeout_s: of one encoded picture; name look-up, redirects and retries are included.
            allow_private: connect to private, loopback, link-local and multicast addresses, too.
            file_roots: folders for file:// urls; none, no files.
            allow_hosts: the only hosts to connect to, redirects included; `*.example.com` means every host
                below it. None: any.
        """
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._roots = [Path(root).resolve() for root in file_roots]
        self._allow_hosts = [host.casefold() for host in allow_hosts]
        self._closing = threading.Event()
        self._backend = _CheckedBackend(allow_private)
        self._pool = httpcore.ConnectionPool(
            max_connections=_MAX_PARALLEL,
            max_keepalive_connections=_MAX_PARALLEL,
            keepalive_expiry=30.0,
            network_backend=self._backend,
        )
        self._threads = ThreadPoolExecutor(_MAX_PARALLEL, "images")

    def fetch(self, images: Sequence[ImageRef | None]) -> list[Picture]:
        """See the port."""
        pending = [self._start(image) for image in images]
        return [answer if isinstance(answer, Picture) else answer.result() for answer in pending]

    def close(self) -> None:
        """Ends what is being fetched as `unavailable`."""
        self._closing.set()
        self._threads.shutdown()
        self._backend.close()
        self._pool.close()

    def _start(self, image: ImageRef | None) -> Picture | Future[Picture]:
        if image is None or image.url is None or image.data is not None:
            return self._inline(image)
        if image.url[:5].lower() == "file:":
            return self._outside(image.url)  # another thread would cost more than the read
        return self._threads.submit(self._outside, image.url)

    def _inline(self, image: ImageRef | None) -> Picture:
        if image is None or image.data is None:
            return Picture("none")
        text = image.data
        if text.startswith("data:"):
            text = text.partition(",")[2]
        if len(text) * 3 // 4 > self._max_bytes + 2:
            return Picture("unusable", reason=f"larger than {self._max_bytes} bytes")
        try:
            encoded = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return Picture("unusable", reason="not base64")
        return self._checked(encoded)

    def _outside(self, text: str) -> Picture:
        try:
            url = httpx.URL(text)
            if url.scheme == "file":
                return self._checked(self._read_file(url))
            if url.scheme == "data":
                return self._inline(ImageRef(data=text))
            return self._checked(self._fetch_with_retries(url))
        except (httpx.InvalidURL, UnicodeError, ValueError, OverflowError):
            return Picture("unusable", reason="not a url")
        except _Unusable as error:
            return Picture("unusable", reason=str(error))
        except _Passing as error:
            return Picture("unavailable", reason=str(error))

    def _checked(self, encoded: bytes) -> Picture:
        if not encoded:
            return Picture("unusable", reason="empty")
        if len(encoded) > self._max_bytes:
            return Picture("unusable", reason=f"larger than {self._max_bytes} bytes")
        return Picture("used", encoded)

    def _read_file(self, url: httpx.URL) -> bytes:
        if url.host not in ("", "localhost"):
            raise _Unusable("a file url names another host")
        try:
            path = Path(url.path).resolve(strict=True)
            if not any(path.is_relative_to(root) for root in self._roots):
                raise _Unusable("outside the allowed roots")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise _Unusable("not a file")
            if status.st_size > self._max_bytes:
                raise _Unusable(f"larger than {self._max_bytes} bytes")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, PermissionError, RuntimeError) as error:
            raise _Unusable("no such file, or not readable") from error
        except OSError as error:
            raise _Passing(f"the file cannot be read: {error.strerror}") from error

    def _fetch_with_retries(self, url: httpx.URL) -> bytes:
        """Try until the deadline."""
        deadline_s = time.monotonic() + self._timeout_s
        pause_s, longest_s = _BACKOFF_S
        self._backend.set_deadline(deadline_s)
        while True:
            try:
                return self._follow(url, deadline_s)
            except (_Passing, *_PASSING_ERRORS) as error:
                pause_s = min(longest_s, pause_s * 2)
                wait_s = pause_s * random.uniform(0.5, 1.0)
                if time.monotonic() + wait_s >= deadline_s or self._closing.wait(wait_s):
                    reason = str(error) or type(error).__name__
                    raise _Passing(f"no picture within {self._timeout_s:g} s: {reason}") from error

    def _follow(self, url: httpx.URL, deadline_s: float) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._get(url, deadline_s)
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise _Unusable(f"more than {_MAX_REDIRECTS} redirects")

    def _is_allowed(self, host: str) -> bool:
        return not self._allow_hosts or any(
            host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed
            for allowed in self._allow_hosts
        )

    def _get(self, url: httpx.URL, deadline_s: float) -> bytes | httpx.URL:
        """The picture, or the address that it has moved to."""
        if url.scheme not in ("http", "https") or not url.host:
            raise _Unusable("neither http, https nor file")
        if not self._is_allowed(url.host.casefold().rstrip(".")):
            raise _Unusable("its host is not among the allowed ones")
        left_s = max(0.001, deadline_s - time.monotonic())
        timeout_s = dict.fromkeys(("connect", "read", "write", "pool"), left_s)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers = [(b"Host", url.netloc), *_HEADERS]
        with self._pool.stream("GET", target, headers=headers, extensions={"timeout": timeout_s}) as response:
            status = response.status
            fields = {name.lower(): value for name, value in response.headers}
            if status in _REDIRECTS and b"location" in fields:
                return url.join(fields[b"location"].decode("ascii"))
            if status >= 500 or status in _PASSING_STATUS:
                raise _Passing(f"status {status}")
            if status != 200:
                raise _Unusable(f"status {status}")
            return self._read_body(response, int(fields.get(b"content-length", b"0")))

    def _read_body(self, response: httpcore.Response, announced_bytes: int) -> bytes:
        body = bytearray()
        if announced_bytes <= self._max_bytes:
            for chunk in response.iter_stream():
                body += chunk
                if len(body) > self._max_bytes:
                    break
            else:
                return bytes(body)
        raise _Unusable(f"larger than {self._max_bytes} bytes")


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects only to addresses that it has checked, and ends everything at the thread's deadline."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpcore.SyncBackend()
        # The system's look-up knows no timeout.
        self._look_ups = ThreadPoolExecutor(16, "names")
        self._thread = threading.local()

    def set_deadline(self, deadline_s: float) -> None:
        """Everything this thread reads and writes from now on is over at `deadline_s`."""
        self._thread.deadline_s = deadline_s

    def left_s(self) -> float:
        left_s: float = self._thread.deadline_s - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout("the deadline has passed")
        return left_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        address = self._resolve(host, port)
        stream = self._inner.connect_tcp(address, port, self.left_s(), local_address, socket_options)
        return _Stream(stream, self)

    def close(self) -> None:
        self._look_ups.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, host: str, port: int) -> str:
        look_up = self._look_ups.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = look_up.result(self.left_s())
        except FutureTimeoutError as error:
            look_up.cancel()
            raise _Passing("the name look-up takes too long") from error
        except OSError as error:
            raise _Passing(f"the name {host} is not found") from error
        for *_, (address, *_) in found:
            if self._allow_private or _is_public(str(address)):
                return str(address)
        raise _Unusable("blocked: not a public address")


class _Stream(httpcore.NetworkStream):
    """A connection on which each step gets what is left of the deadline: a slow drip ends too."""

    def __init__(self, inner: httpcore.NetworkStream, backend: _CheckedBackend) -> None:
        self._inner = inner
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._backend.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._backend.left_s())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, self._backend.left_s()), self._backend
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inside or address
    return address.is_global and not address.is_multicast
