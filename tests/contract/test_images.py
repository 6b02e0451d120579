"""`Images`: the twin in memory, and the adapter against a server that behaves badly."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest

from tagstream.adapters.images import HttpImages, _is_public
from tagstream.core.events import ImageRef
from tagstream.core.ports import Picture
from tests.support.memory import MemoryImages

PICTURE = b"\xff\xd8" + bytes(range(256)) * 20
MAX_BYTES = 10_000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.server.requests[self.path] += 1
        self.server.connections.add(self.client_address)
        getattr(self, self.path.split("/")[1])()

    def picture(self) -> None:
        self.answer(200, PICTURE)

    def missing(self) -> None:
        self.answer(404, b"no")

    def limited_once(self) -> None:
        self.answer(429 if self.server.requests[self.path] == 1 else 200, PICTURE)

    def broken_once(self) -> None:
        self.answer(500 if self.server.requests[self.path] == 1 else 200, PICTURE)

    def broken(self) -> None:
        self.answer(503, b"")

    def empty(self) -> None:
        self.answer(200, b"")

    def large(self) -> None:
        self.answer(200, b"x" * (MAX_BYTES + 1))

    def endless(self) -> None:
        """Says nothing about its size."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while not self.server.is_ending.is_set():
            self.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        while not self.server.is_ending.wait(0.05):
            self.wfile.write(b"x")

    def drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.is_ending.wait(0.05):
            self.wfile.write(b"X-Header: x\r\n")

    def hang_up(self) -> None:
        self.close_connection = True

    def redirect(self) -> None:
        """/redirect/<n>: n redirects before the picture."""
        left = int(self.path.split("/")[2])
        self.move(f"/redirect/{left - 1}" if left else "/picture")

    def loop(self) -> None:
        self.move("/loop")

    def elsewhere(self) -> None:
        self.move("http://169.254.169.254/latest/meta-data")

    def to_file(self) -> None:
        self.move("file:///etc/passwd")

    def move(self, location: str) -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: Counter[str] = Counter()
        self.connections: set[object] = set()
        self.is_ending = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """The client hangs up on some answers; that is the point of them."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield http
        http.is_ending.set()
        http.shutdown()
        thread.join()


@pytest.fixture
def images(tmp_path: Path) -> Iterator[HttpImages]:
    adapter = HttpImages(
        max_bytes=MAX_BYTES, timeout_s=1.0, allow_private=True, file_roots=[tmp_path / "root"]
    )
    yield adapter
    adapter.close()


@pytest.fixture(params=["memory", "http"])
def either(request: pytest.FixtureRequest, server: _Server) -> MemoryImages | HttpImages:
    if request.param == "memory":
        return MemoryImages({f"{server.url}/picture": PICTURE})
    adapter: HttpImages = request.getfixturevalue("images")
    return adapter


def fetch(images: Any, url: str) -> Picture:
    (picture,) = images.fetch([ImageRef(url=url)])
    assert isinstance(picture, Picture)
    return picture


def encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def test_pictures_come_in_order_with_none_where_there_is_none(either: Any, server: _Server) -> None:
    refs = [
        None,
        ImageRef(data=encoded(b"inline")),
        ImageRef(),
        ImageRef(url=f"{server.url}/picture"),
        ImageRef(url=f"{server.url}/missing"),
        ImageRef(data="¡no!"),
        ImageRef(data=encoded(b"data wins"), url=f"{server.url}/missing"),
    ]
    pictures = either.fetch(refs)
    assert [picture.use for picture in pictures] == [
        "none",
        "used",
        "none",
        "used",
        "unusable",
        "unusable",
        "used",
    ]
    assert pictures[1].encoded == b"inline"
    assert pictures[3].encoded == PICTURE
    assert pictures[4].reason == "status 404"
    assert pictures[5].reason == "not base64"
    assert pictures[6].encoded == b"data wins"


def test_an_inline_picture_may_be_a_data_url_and_has_the_same_limit(images: HttpImages) -> None:
    data_url = f"data:image/png;base64,{encoded(b'png')}"
    large = encoded(b"x" * (MAX_BYTES + 1))
    assert [p.encoded for p in images.fetch([ImageRef(data=data_url), ImageRef(url=data_url)])] == [
        b"png"
    ] * 2
    refused = images.fetch([ImageRef(data=large), ImageRef(data=""), ImageRef(data="data:image/png;base64,")])
    assert [p.use for p in refused] == ["unusable"] * 3
    assert [p.reason for p in refused] == [f"larger than {MAX_BYTES} bytes", "empty", "empty"]


@pytest.mark.parametrize("path", ["/broken_once", "/limited_once"])
def test_a_passing_failure_is_tried_again(images: HttpImages, server: _Server, path: str) -> None:
    assert fetch(images, server.url + path) == Picture("used", PICTURE)
    assert server.requests[path] == 2


@pytest.mark.parametrize("path", ["/broken", "/drip", "/drip_headers", "/hang_up"])
def test_what_does_not_come_in_time_is_unavailable(images: HttpImages, server: _Server, path: str) -> None:
    started_s = time.monotonic()
    picture = fetch(images, server.url + path)
    assert picture.use == "unavailable"
    assert "within 1 s" in picture.reason
    assert time.monotonic() - started_s < 1.6


def test_a_host_that_is_not_there_is_unavailable(images: HttpImages) -> None:
    assert fetch(images, "http://no-such-host.invalid/a.jpg").use == "unavailable"
    assert fetch(images, "http://127.0.0.1:1/a.jpg").use == "unavailable"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "status 404"),
        ("/large", "larger than"),
        ("/endless", "larger than"),
        ("/empty", "empty"),
        ("/loop", "more than 3 redirects"),
        ("/redirect/3", "more than 3 redirects"),
        ("/to_file", "neither http, https nor file"),
    ],
)
def test_what_will_never_come_is_unusable_at_once(
    images: HttpImages, server: _Server, path: str, reason: str
) -> None:
    started_s = time.monotonic()
    picture = fetch(images, server.url + path)
    assert picture.use == "unusable"
    assert reason in picture.reason
    assert time.monotonic() - started_s < 0.9


def test_three_redirects_are_followed(images: HttpImages, server: _Server) -> None:
    assert fetch(images, f"{server.url}/redirect/2") == Picture("used", PICTURE)


@pytest.mark.parametrize(
    "url", ["", "picture.jpg", "ftp://host/a.jpg", "http://", "http://[::1", "javascript:1"]
)
def test_what_is_no_url_is_unusable(images: HttpImages, url: str) -> None:
    assert fetch(images, url).use == "unusable"


def test_private_addresses_are_blocked_also_behind_a_redirect(server: _Server) -> None:
    strict = HttpImages(max_bytes=MAX_BYTES, timeout_s=1.0)
    port = server.server_address[1]
    for host in (
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "169.254.169.254",
        "2130706433",
    ):
        picture = fetch(strict, f"http://{host}:{port}/picture")
        assert (picture.use, picture.reason) == ("unusable", "blocked: not a public address"), host
    assert not server.requests
    strict.close()


def test_only_allowed_hosts_are_connected_to_redirects_included(server: _Server) -> None:
    images = HttpImages(
        max_bytes=MAX_BYTES, timeout_s=1.0, allow_private=True, allow_hosts=["127.0.0.1", "*.example.com"]
    )
    assert fetch(images, f"{server.url}/picture").use == "used"
    port = server.server_address[1]
    seen = server.requests.total()
    for host in ("localhost", "example.com", "evil-example.com", "127.0.0.1.nip.io"):
        picture = fetch(images, f"http://{host}:{port}/picture")
        assert (picture.use, picture.reason) == ("unusable", "its host is not among the allowed ones"), host
    assert server.requests.total() == seen
    assert "allowed" not in fetch(images, f"http://a.EXAMPLE.com:{port}/picture").reason
    assert fetch(images, f"{server.url}/elsewhere").reason == "its host is not among the allowed ones"
    images.close()


def test_a_redirect_is_checked_like_the_first_url(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the test server's address counts as public, and nothing else does."""
    monkeypatch.setattr("tagstream.adapters.images._is_public", lambda address: address == "127.0.0.1")
    images = HttpImages(max_bytes=MAX_BYTES, timeout_s=1.0)
    assert fetch(images, f"{server.url}/picture").use == "used"
    picture = fetch(images, f"{server.url}/elsewhere")
    assert (picture.use, picture.reason) == ("unusable", "blocked: not a public address")
    images.close()


def test_a_name_is_looked_up_once_and_the_address_that_was_checked_is_connected_to(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers with another address the second time gains nothing."""
    looked_up: list[str] = []
    port = server.server_address[1]

    def look_up(host: str, port: int, **options: Any) -> list[Any]:
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connect = httpcore.SyncBackend.connect_tcp
    connected: list[str] = []

    def recorded(backend: Any, host: str, *rest: Any) -> Any:
        connected.append(host)
        return connect(backend, host, *rest)

    monkeypatch.setattr("tagstream.adapters.images._is_public", lambda address: address == "127.0.0.1")
    names = SimpleNamespace(getaddrinfo=look_up, SOCK_STREAM=socket.SOCK_STREAM)
    monkeypatch.setattr("tagstream.adapters.images.socket", names)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", recorded)
    images = HttpImages(max_bytes=MAX_BYTES, timeout_s=1.0)
    assert fetch(images, f"http://pictures.example:{port}/picture") == Picture("used", PICTURE)
    assert looked_up == ["pictures.example"]
    assert connected == ["127.0.0.1"]
    images.close()


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:0001::1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_which_addresses_are_public(address: str, is_public: bool) -> None:
    assert _is_public(address) == is_public


def test_many_pictures_are_fetched_at_once_and_connections_are_kept(
    images: HttpImages, server: _Server
) -> None:
    slow_and_good = [ImageRef(url=f"{server.url}/drip")] * 10 + [ImageRef(url=f"{server.url}/picture")] * 10
    started_s = time.monotonic()
    uses = [picture.use for picture in images.fetch(slow_and_good)]
    assert uses == ["unavailable"] * 10 + ["used"] * 10
    assert time.monotonic() - started_s < 2.5, "ten drips, one after the other, take ten seconds"
    server.connections.clear()
    for _ in range(20):
        assert fetch(images, f"{server.url}/picture").use == "used"
    assert len(server.connections) < 20


def test_files_are_read_under_the_roots_only(images: HttpImages, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "ein bild.jpg").write_bytes(PICTURE)
    (root / "large.jpg").write_bytes(b"x" * (MAX_BYTES + 1))
    (tmp_path / "secret.jpg").write_bytes(PICTURE)
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "inside.jpg").symlink_to(root / "ein bild.jpg")
    os.mkfifo(root / "pipe.jpg")
    assert fetch(images, f"file://{root}/ein%20bild.jpg") == Picture("used", PICTURE)
    assert fetch(images, f"file://localhost{root}/inside.jpg") == Picture("used", PICTURE)
    refused = {
        f"file://{tmp_path}/secret.jpg": "outside the allowed roots",
        f"file://{root}/link.jpg": "outside the allowed roots",
        f"file://{root}/../secret.jpg": "outside the allowed roots",
        f"file://{root}/large.jpg": "larger than",
        f"file://{root}/missing.jpg": "no such file",
        f"file://{root}/pipe.jpg": "not a file",
        f"file://{root}": "not a file",
        f"file://otherhost{root}/ein%20bild.jpg": "another host",
        "file:///nul%00byte": "not a url",
    }
    for url, reason in refused.items():
        picture = fetch(images, url)
        assert picture.use == "unusable", url
        assert reason in picture.reason, url


def test_without_roots_there_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    images = HttpImages(max_bytes=MAX_BYTES, timeout_s=5.0)
    assert fetch(images, f"file://{tmp_path}/a.jpg") == Picture(
        "unusable", reason="outside the allowed roots"
    )
    images.close()


def test_closing_ends_what_is_being_tried(server: _Server) -> None:
    images = HttpImages(max_bytes=MAX_BYTES, timeout_s=60.0, allow_private=True)
    answers: list[Picture] = []
    fetching = threading.Thread(target=lambda: answers.append(fetch(images, f"{server.url}/broken")))
    fetching.start()
    while not server.requests:
        assert fetching.is_alive()
    images.close()
    fetching.join(10)
    assert [picture.use for picture in answers] == ["unavailable"]
