"""A server for the pages of a store's runs, for this machine only.

It uses the standard library: four read-only kinds of URL need no framework, and nothing from Prefect. It listens on the
loopback address, answers GET and HEAD, and refuses requests whose Host is not its own, so that no other web page can
reach it under a name of its own (DNS rebinding). URLs are never used as file paths: runs are looked up in the store,
recordings among the rows of the run's corpora.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from emtta_core.errors import EmttaError, UsageError
from emtta_core.report.examples import Example, audio_of
from emtta_core.report.page import make_page, policy, render
from emtta_core.store import Store
from emtta_core.store.queries import Limits
from emtta_core.store.result import Result
from emtta_core.store.run_list import RunList
from emtta_core.store.snapshot import Snapshot

log = logging.getLogger("emtta.view")

LOOPBACK = "127.0.0.1"
MAX_CACHED_PAGES = 16
"""The most recently requested pages that are kept in memory."""

HTML, FLAC = "text/html; charset=utf-8", "audio/flac"


@dataclass(frozen=True, slots=True)
class Response:
    """The response for a URL."""

    content: bytes  # its body
    kind: str = HTML  # its media type
    status: HTTPStatus = HTTPStatus.OK  # its status


class Viewer:
    """The pages of a store, each made on its first request, and again when the run's files change."""

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        self.store = store
        self.limits = limits  # the limits of a query
        self._pages: OrderedDict[tuple[str, str | None], tuple[int, bytes]] = OrderedDict()
        self._runs = RunList(store, limits)
        self._list_of: tuple[Result, bytes] | None = None
        self._listed_at = 0.0
        self._listing = threading.Lock()  # one at a time: reading all new runs may take much memory
        self._making = threading.Lock()  # one at a time: a page occupies a core for seconds

    def answer(self, path: str) -> Response:
        """The response for `/`, `/run/RUN`, the same with `?scorer=NAME`, or `/run/RUN/audio/CORPUS/UTTERANCE`.

        For any other path it is an error page.
        """
        address = urlsplit(path)
        match [unquote(part) for part in address.path.strip("/").split("/")]:
            case [""]:
                return self._list()
            case ["run", run_id]:
                return self._page(run_id, parse_qs(address.query).get("scorer", [None])[-1])
            case ["run", run_id, "audio", corpus_id, utterance_id]:
                return self._audio(run_id, corpus_id, utterance_id)
        return _refusal(HTTPStatus.NOT_FOUND, "There is no such page.", "See the list of all runs.")

    def _list(self) -> Response:
        # Requests that arrive while the store is being listed share the next listing.
        requested_at = time.monotonic()
        with self._listing:
            if self._list_of is None or self._listed_at < requested_at:
                started_at = time.monotonic()
                runs = self._runs.refresh()
                self._listed_at = started_at
                if self._list_of is None or self._list_of[0] is not runs:
                    html = render("runs.html", runs=runs.records, location=self.store.location).encode()
                    self._list_of = runs, html
            return Response(self._list_of[1])

    def _page(self, run_id: str, scorer: str | None) -> Response:
        if (refused := self._unknown(run_id)) is not None:
            return refused
        with self._making:
            files = hash(tuple(Snapshot.take(self.store.backend, [run_id]).entries))
            cached = self._pages.get((run_id, scorer))
            if cached is None or cached[0] != files:
                address = _audio_address(run_id)
                page = make_page(self.store, run_id, audio_address=address, scorer=scorer, limits=self.limits)
                cached = files, page.html.encode()
            self._pages[run_id, scorer] = cached
            self._pages.move_to_end((run_id, scorer))
            while len(self._pages) > MAX_CACHED_PAGES:
                self._pages.popitem(last=False)
        return Response(cached[1])

    def _audio(self, run_id: str, corpus_id: str, utterance_id: str) -> Response:
        if (refused := self._unknown(run_id)) is not None:
            return refused
        if all(row.corpus_id != corpus_id for row in self.store.plan(run_id)):
            return _refusal(HTTPStatus.NOT_FOUND, f"{run_id} has no corpus {corpus_id}.", "See the page of the run.")
        found = audio_of(self.store, [(corpus_id, utterance_id)])
        if not found:
            why = f"There is no recording of {utterance_id}: it was removed, or is in error."
            return _refusal(HTTPStatus.NOT_FOUND, why, self.store.command("report", "failures", "--run", run_id))
        return Response(found[corpus_id, utterance_id], FLAC)

    def _unknown(self, run_id: str) -> Response | None:
        # A page that says that there is no such run; None if the run exists.
        try:
            self.store.run(run_id)
        except UsageError:
            return _refusal(HTTPStatus.NOT_FOUND, f"There is no run {run_id!r} here.", "See the list of all runs.")
        return None


class ViewServer(ThreadingHTTPServer):
    """A server for a store's pages on the loopback address."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, store: Store, port: int = 0, limits: Limits | None = None) -> None:
        """Listen on a port, 0 for any free one; `limits` applies to each query of a page.

        Raises:
            UsageError: the port is invalid or in use.
        """
        if not 0 <= port <= 65_535:
            raise UsageError(f"{port} is not a port; give one from 1 to 65535, or 0 for any free port")
        self.viewer = Viewer(store, limits)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {LOOPBACK}:{port}: {error.strerror}; choose another with --port, or --port 0"
            ) from error

    @property
    def url(self) -> str:
        """The URL of the list of runs."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    @property
    def hosts(self) -> frozenset[str]:
        """The host names under which it answers."""
        return frozenset(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))

    def handle_error(self, *_: object) -> None:
        """Do not report a client that disconnected before its page was ready."""
        log.debug("a request was aborted", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: ViewServer
    server_version = "emtta"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._send(self._answer())

    def do_HEAD(self) -> None:
        self._send(self._answer(), with_content=False)

    def _answer(self) -> Response:
        if self.headers.get("Host") not in self.server.hosts:
            message = f"This server answers only as {LOOPBACK} and localhost."
            return _refusal(HTTPStatus.MISDIRECTED_REQUEST, message, f"Open {self.server.url}")
        try:
            return self.server.viewer.answer(self.path)
        except UsageError as error:  # what was requested does not exist
            return _refusal(HTTPStatus.NOT_FOUND, "There is no such page.", str(error))
        except EmttaError as error:
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "This page cannot be made.", str(error))
        except Exception as error:  # a failing request must not affect others
            log.exception("%s failed", self.path)
            why = f"{type(error).__name__}: {error}"
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "This page cannot be made.", why)

    def _send(self, answer: Response, *, with_content: bool = True) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": answer.kind, "Content-Length": str(len(answer.content))}
        for name, value in (_HEADERS | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if with_content:
            self.wfile.write(answer.content)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (the base class's name)
        log.debug(format, *arguments)


_HEADERS = {
    "Content-Security-Policy": f"{policy(served=True)}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def _audio_address(run_id: str) -> Callable[[Example], str]:
    def address(one: Example) -> str:
        return "/".join(("/run", quote(run_id, ""), "audio", quote(one.corpus_id, ""), quote(one.utterance_id, "")))

    return address


def _refusal(status: HTTPStatus, what: str, hint: str) -> Response:
    html = render("refusal.html", status=int(status), phrase=status.phrase, what=what, hint=hint)
    return Response(html.encode(), status=status)
