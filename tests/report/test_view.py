"""`emtta view` shows the runs of a store only to this machine, and never writes."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from browser import chromium, opened
from conftest import Command, tone
from store_factory import REFERENCE, begin_run, end_attempt, with_errors, write_shard

from emtta_core.audio.files import encode_flac
from emtta_core.pipeline.rescoring import rescore
from emtta_core.report.view_server import ViewServer
from emtta_core.store import AudioBytes, CellKey, PreparedRow, Store

FLAC = encode_flac(tone(0.3))
NAME = "a/b c?d&e"  # an utterance id that must be quoted in a URL


def add_run(store: Store, run_id: str, day: int = 23) -> None:
    """Add a run of one domain with recordings."""
    cells = [("g", "d", method) for method in ("source", "em-tok-b")]
    begin_run(store, run_id, cells, created_at=datetime(2026, 11, day, tzinfo=UTC))
    for method, errors in (("source", 3), ("em-tok-b", 1)):
        write_shard(
            store, CellKey(run_id, "d", method), {NAME: [with_errors(3), with_errors(errors)], "u": [REFERENCE] * 2}
        )


def prepare(store: Store, corpus_id: str) -> None:
    """Add the recordings of a corpus."""
    audio = AudioBytes(bytes=FLAC, path="x.flac")
    same = {"text": REFERENCE, "language": "en", "speaker": "s", "seconds": 0.3, "corruption": None, "snr_db": None}
    store.write_prepared(corpus_id, 0, [PreparedRow(utterance_id=NAME, audio=audio, **same)])
    store.finish_prepared(corpus_id, shards=1, utterances=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("view") / "store", create=True)
    prepare(store, "corpus-d")
    prepare(store, "corpus-of-another")
    add_run(store, "first")
    add_run(store, "second", day=24)
    return store


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[ViewServer]:
    with ViewServer(store) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ViewServer, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    """Send a request with the path unchanged, and return the response and its text."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    text = response.read().decode("utf-8", "replace")
    connection.close()
    return response, text


def test_list_is_newest_first_with_links(server: ViewServer) -> None:
    response, text = ask(server, "/")
    assert response.status == 200
    links = re.findall(r'href="(/run/[^"]+)"', text)
    assert links == ["/run/second", "/run/first"]
    response, page = ask(server, links[0])
    assert response.status == 200
    assert "em-tok-b has the lowest word error rate" in page
    assert 'href="/"' in page


def test_list_is_cached_until_new_run(server: ViewServer, store: Store) -> None:
    with ThreadPoolExecutor(8) as readers:
        answers = list(readers.map(lambda _: server.viewer.answer("/"), range(8)))
    assert len({id(answer.content) for answer in answers}) == 1
    add_run(store, "another", day=20)
    assert server.viewer.answer("/").content is not answers[0].content
    assert "/run/another" in ask(server, "/")[1]


def test_recording_is_served_on_request(server: ViewServer) -> None:
    _, page = ask(server, "/run/first")
    assert "data:audio" not in page
    (address,) = set(re.findall(r'<audio [^>]*src="([^"]+)"', page))
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", address)
    response = connection.getresponse()
    assert response.getheader("Content-Type") == "audio/flac"
    assert response.read() == FLAC
    connection.close()


def test_page_is_cached_until_progress(server: ViewServer, store: Store) -> None:
    add_run(store, "growing", day=22)
    _, before = ask(server, "/run/growing")
    kept = server.viewer._pages["growing", None]
    _, same = ask(server, "/run/growing")
    assert same == before
    assert server.viewer._pages["growing", None][1] is kept[1]
    write_shard(store, CellKey("growing", "d", "em-tok-b"), {NAME: [with_errors(3), with_errors(4)]}, attempt=2)
    end_attempt(store, CellKey("growing", "d", "em-tok-b"), group="g", attempt=2)
    _, after = ask(server, "/run/growing")
    assert "No method has a lower rate than source" in after
    assert "No method has a lower rate than source" not in before


def test_page_links_to_other_scorers(server: ViewServer, store: Store) -> None:
    add_run(store, "rescored", day=21)
    usual = ask(server, "/run/rescored")[1]
    assert '<p class="detail" id="scorer">Scorer: whisper.</p>' in usual
    rescore(store, "rescored", ["jiwer+numbers"])
    usual = ask(server, "/run/rescored")[1]
    (link,) = re.findall(r'Also by <a href="([^"]+)">jiwer\+numbers</a>\.', usual)
    response, page = ask(server, f"/run/rescored{link}")
    assert response.status == 200
    assert 'Scorer: jiwer+numbers. Also by <a href="?scorer=whisper">whisper</a>.' in page
    response, refused = ask(server, "/run/rescored?scorer=kaldi")
    assert response.status == 404
    assert "emtta score rescored --scorer kaldi" in refused


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/run",
        "/run/nun",
        "/run/first/more",
        "/run/../../../../etc/passwd",
        "/run/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/run/first/audio/../../runs",
        "/run/first/audio/%2e%2e/u",
        "/run/first/audio/corpus-d/u",
        "/run/first/audio/corpus-of-another/" + "a%2Fb%20c%3Fd%26e",
        "/run/<script>alert(1)</script>",
        "//127.0.0.1/etc/passwd",
    ],
)
def test_missing_path_gets_error_page(server: ViewServer, path: str) -> None:
    connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=30)
    host = f"127.0.0.1:{server.server_port}"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while piece := connection.recv(65_536):
        answer += piece
    connection.close()
    head, _, text = answer.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 404 ")
    assert '<a href="/">All runs</a>' in text
    assert "<script>alert" not in text
    assert "root:" not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""])
def test_foreign_host_is_refused(server: ViewServer, host: str) -> None:
    response, text = ask(server, "/", Host=host)
    assert response.status == 421
    assert "/run/" not in text


def test_localhost_is_accepted(server: ViewServer) -> None:
    assert ask(server, "/", Host=f"localhost:{server.server_port}")[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_server_is_read_only(server: ViewServer, method: str) -> None:
    assert ask(server, "/run/first", method)[0].status == 501


def test_head_omits_body(server: ViewServer) -> None:
    response, text = ask(server, "/", "HEAD")
    assert response.status == 200
    assert int(response.getheader("Content-Length") or 0) > 1000
    assert text == ""


def test_only_localhost_is_bound(server: ViewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_pages_send_security_policy(server: ViewServer) -> None:
    headers = ask(server, "/")[0].headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "media-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_broken_run_breaks_only_its_page(server: ViewServer, store: Store) -> None:
    add_run(store, "broken", day=21)
    (Path(store.location) / "runs/run_id=broken/run.parquet").write_bytes(b"PAR1 cut short")
    response, text = ask(server, "/run/broken")
    assert response.status == 500
    assert "run.parquet" in text
    assert ask(server, "/run/first")[0].status == 200


def test_browser_plays_recording(server: ViewServer) -> None:
    with chromium() as browser, opened(browser, server.url) as seen:
        seen.page.get_by_role("link", name="second").click()
        seen.page.wait_for_selector("h1 .id")
        audio = seen.page.locator("audio").first
        seconds = audio.evaluate("""(one) => new Promise((done, fail) => {
            one.onloadedmetadata = () => done(one.duration);
            one.onerror = () => fail(one.error.message);
            one.load();
            one.preload = "metadata";
        })""")
        assert seconds == pytest.approx(0.3, abs=0.01)
        assert seen.complaints == []
        assert all(address.startswith(server.url) for address in seen.requests if not address.startswith("data:"))


def test_busy_or_invalid_port_is_refused(server: ViewServer, store: Store, emtta: Command) -> None:
    ended = emtta("view", "--store", store.location, "--port", server.server_port, "--no-browser")
    assert ended.code == 2
    assert "choose another with --port" in ended.err.replace("\n", " ")
    assert emtta("view", "--store", store.location, "--port", 70_000, "--no-browser").code == 2


def test_command_runs_until_ctrl_c(store: Store, tmp_path: Path) -> None:
    address_file = tmp_path / "address"
    browser = tmp_path / "browser.sh"
    browser.write_text(f'#!/bin/sh\necho "$1" > {address_file}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-c", "from flows.cli.main import main; main()"]
    process = subprocess.Popen(
        [*command, "view", "--store", store.location, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BROWSER": f"{browser} %s"},
    )
    try:
        line = process.stderr.readline() if process.stderr else ""
        url = re.findall(r"http://127\.0\.0\.1:\d+/", line)[0]
        until = time.monotonic() + 30
        while not address_file.exists() or not address_file.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        assert address_file.read_text().strip() == url
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert rest.strip() == "stopped"
