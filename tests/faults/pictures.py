"""A picture host on loopback that can be told to misbehave."""

from __future__ import annotations

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tagstream.catalogue.built_in import listed

_CHUNK = b"\xff" * 65536


class PictureHost:
    """`mode`: well, hangs, drips, fails, redirects or floods. Harmless to close twice."""

    def __init__(self) -> None:
        self.mode = "well"
        self.asked = 0
        self.closing = threading.Event()
        self._picture = listed()[0].image
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):  # the one who asked has hung up
                    host.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        mode, self.asked = self.mode, self.asked + 1
        if mode == "hangs":
            self._while_in(mode, lambda: None)
        elif mode == "redirects":
            request.send_response(302)
            request.send_header("Location", f"{self.url}/again-{time.monotonic_ns()}.jpg")
            request.end_headers()
        elif mode == "fails":
            request.send_error(500)
        else:
            request.send_response(200)
            request.send_header("Content-Type", "image/jpeg")
            if mode == "well":
                request.send_header("Content-Length", str(len(self._picture)))
            request.end_headers()
            if mode == "well":
                request.wfile.write(self._picture)
            elif mode == "drips":
                self._while_in(mode, lambda: request.wfile.write(b"\xff"))
            else:
                self._while_in(mode, lambda: request.wfile.write(_CHUNK), pause_s=0.0)

    def _while_in(self, mode: str, step: Any, pause_s: float = 0.2) -> None:
        while self.mode == mode and not self.closing.wait(pause_s):
            step()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
