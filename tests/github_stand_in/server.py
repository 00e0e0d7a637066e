#!/usr/bin/env python3
"""A stand-in for GitHub's REST API on loopback, for tests. See README.md."""

import argparse
import os
import secrets
import socket
import socketserver
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import api
import control
import faults
from repository import Repository, now
from responses import Request

RATE_LIMIT = 5000
STEP = 1 << 16


class ClientGone(ConnectionError):
    """The client hung up in the middle of its request: nothing is performed."""


class Server(ThreadingHTTPServer):
    """One thread for each connection, all sharing one StandIn."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, stand_in):
        super().__init__(("127.0.0.1", port), Exchange)
        self.stand_in = stand_in
        self.stopping = threading.Event()
        self.remaining = RATE_LIMIT
        self.window_end = int(time.time()) + 3600

    def server_bind(self):
        """Skips HTTPServer's reverse look-up, which can hang without DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address

    def handle_error(self, request, client_address):
        """A client that goes away is normal here; a bug is not."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Exchange(BaseHTTPRequestHandler):
    """One connection; `serve` runs once for each request on it. The methods
    without an underscore are what a fault can do to the connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    awaiting_continue = False
    request = entry = None

    def setup(self):
        super().setup()
        self.stand_in = self.server.stand_in

    def version_string(self):
        return "github.com"

    def log_message(self, *_):
        """Quiet: the control API tells what was asked."""

    def handle_expect_100(self):
        """Held back until the body is wanted, so that `reset_before` can come
        before a client has sent anything."""
        self.awaiting_continue = True
        return True

    def serve(self):
        """Answers one request."""
        path, _, query = self.path.partition("?")
        host = self.headers.get("host", "%s:%d" % self.server.server_address)
        self.request = Request(
            self.command, self.path, path, dict(parse_qsl(query, True)), self.headers,
            f"http://{host}",
        )
        if path.startswith("/_control/"):
            self.entry = None
            self.read_body()
            body = self.request.body
            self.send(control.answer(self.stand_in, self.command, unquote(path), body))
            return
        self.entry = self.stand_in.log.start(self.command, self.path, self.headers)
        fault = self.stand_in.faults.take(self.command, self.path)
        if fault:
            self.entry["fault"] = fault.kind
        faults.serve(self, fault)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = serve

    def _chunks(self):
        """The body as it arrives, from Content-Length or chunked coding."""
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            left = int(self.headers.get("content-length") or 0)
            yield from self._exactly(left)
            return
        while True:
            line = self.rfile.readline(1024)
            if not line.endswith(b"\n"):
                raise ClientGone
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while self.rfile.readline(65536) not in (b"\r\n", b"\n", b""):
                    pass  # trailers
                return
            yield from self._exactly(size)
            self.rfile.readline(16)

    def _exactly(self, left):
        while left:
            data = self.rfile.read1(min(left, STEP))
            if not data:
                raise ClientGone
            left -= len(data)
            yield data

    def _receive(self):
        if self.awaiting_continue:
            self.awaiting_continue = False
            self.send_response_only(100)
            self.end_headers()
        for data in self._chunks():
            if self.entry:
                self.entry["request_bytes"] += len(data)
            yield data

    def read_body(self):
        """Reads the body. More than the limit is read and thrown away, so that
        the client gets to hear the 422 instead of a reset."""
        limit, size, kept = self.stand_in.settings.body_limit, 0, []
        for data in self._receive():
            size += len(data)
            if size <= limit:
                kept.append(data)
            else:
                kept.clear()
        self.request.body = b"".join(kept) if size <= limit else None

    def read_half(self, unknown):
        """Reads half of the body; `unknown` bytes when its length is."""
        length = self.headers.get("content-length")
        wanted = int(length) // 2 if length else unknown
        for data in self._receive():
            wanted -= len(data)
            if wanted <= 0:
                return

    def perform(self):
        """Lets the endpoint do its work."""
        return api.answer(self.stand_in, self.request)

    def send(self, response, length=None, chunk=None, delay=0):
        """Sends an answer; `length` overrides Content-Length, `chunk` and
        `delay` make it drip."""
        if self.entry:
            self.entry["status"] = response.status
        self.send_response(response.status)
        for name, value in self._headers(response).items():
            self.send_header(name, value)
        if response.status != 204:
            self.send_header("content-type", response.content_type)
            self.send_header("content-length", str(length or len(response.body)))
        self.end_headers()
        body = memoryview(response.body)
        for start in range(0, len(body), chunk or STEP):
            self.wfile.write(body[start : start + (chunk or STEP)])
            if delay and self.server.stopping.wait(delay):
                break

    def _headers(self, response):
        """GitHub's own headers, with those of the answer laid over them."""
        self.server.remaining = max(self.server.remaining - 1, 1)
        return {
            "x-github-request-id": ":".join(secrets.token_hex(2).upper() for _ in range(4)),
            "x-github-media-type": "github.v3; format=json",
            "x-ratelimit-limit": str(RATE_LIMIT),
            "x-ratelimit-remaining": str(self.server.remaining),
            "x-ratelimit-used": str(RATE_LIMIT - self.server.remaining),
            "x-ratelimit-reset": str(self.server.window_end),
            "x-ratelimit-resource": "core",
            **response.headers,
        }

    def wait(self, seconds):
        """Sits still, but not beyond the end of the stand-in."""
        self.server.stopping.wait(seconds)

    def close(self):
        """Ends the connection in good order after this request."""
        self.close_connection = True

    def reset(self):
        """Sends RST: with SO_LINGER at zero, closing throws everything away."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(self.connection.detach())


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", required=True, help="folder for repo.git")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--owner", default="acme")
    parser.add_argument("--repo", default="backups")
    parser.add_argument("--public", action="store_true")
    parser.add_argument("--archived", action="store_true")
    parser.add_argument("--empty", action="store_true", help="no first commit")
    parser.add_argument("--default-branch")
    parser.add_argument("--body-limit", type=int, default=35_000_000)
    parser.add_argument("--token", action="append", default=[], help="may write")
    parser.add_argument("--read-only-token", action="append", default=[])
    parser.add_argument("--no-access-token", action="append", default=[])
    parser.add_argument("--exit-with-stdin", action="store_true")
    return parser.parse_args()


def build(options):
    """The StandIn for a command line; an existing repository is kept."""
    folder = os.path.join(options.state, "repo.git")
    fresh = not os.path.exists(folder)
    repository = Repository(folder, options.default_branch)
    stand_in = api.StandIn(
        repository, options.owner, options.repo, private=not options.public,
        archived=options.archived, body_limit=options.body_limit,
    )
    stand_in.tokens = options.token
    stand_in.read_only_tokens = options.read_only_token
    stand_in.strangers = options.no_access_token
    if fresh and not options.empty:
        mail = f"{options.owner}@users.noreply.github.com"
        person = {"name": options.owner, "email": mail, "date": now()}
        text = f"# {options.repo}\n".encode()
        repository.commit_path(
            repository.default_branch, "README.md", text, "Initial commit", person, person
        )
    return stand_in


def main():
    """Serves until killed, or until stdin ends."""
    options = arguments()
    server = Server(options.port, build(options))
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)

    def watch():
        while sys.stdin.buffer.read(STEP):
            pass
        server.stopping.set()
        server.shutdown()

    if options.exit_with_stdin:
        threading.Thread(target=watch, daemon=True).start()
    try:
        server.serve_forever(poll_interval=0.05)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
