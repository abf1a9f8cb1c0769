"""Small archives, and a local web server that delivers them."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.archives import Archive, small_cifar10, small_cifar100


@pytest.fixture(name="archive")
def _archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    return small_cifar10(monkeypatch)


@pytest.fixture(name="archive100")
def _archive100(monkeypatch: pytest.MonkeyPatch) -> Archive:
    return small_cifar100(monkeypatch)


@dataclass
class Server:
    """A local web server: `pages` maps a path to what it delivers, `announced` to a false Content-Length."""

    url: str
    pages: dict[str, bytes] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append(self.path)
            if self.path not in server.pages:
                self.send_error(404)
                return
            content = server.pages[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(server.announced.get(self.path, len(content))))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        server = Server(f"http://127.0.0.1:{web.server_port}")
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield server
        web.shutdown()
