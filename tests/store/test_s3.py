"""A store in an object store keeps the guarantees of a folder, with a real server and a failing network."""

import os
import re
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from conftest import CLEAN, Command, Speech, SuiteFile
from s3_server import S3Server
from store_factory import begin_run, one_run, with_errors, write_shard

from emtta_core.errors import EmttaError, StoreError
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.store.backend import open_backend
from emtta_core.store.tables import TABLES

KEY = CellKey("run", "babble", "source")

Relay = Callable[[socket.socket, socket.socket], None]
"""Forwards a connection between a client and the server, or disrupts it."""


@contextmanager
def between(server: S3Server, relay: Relay) -> Iterator[str]:
    """Run a proxy between clients and the server; yields its address."""
    host, port = server.address.removeprefix("http://").split(":")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with closing(socket.create_connection((host, int(port)))) as upstream:
                with suppress(OSError):
                    relay(self.request, upstream)
                with suppress(OSError):  # a thread may still be reading it, so closing it is not enough
                    upstream.shutdown(socket.SHUT_RDWR)

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close, request_queue_size = True, False, 128

    with Proxy(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}"
        finally:
            proxy.shutdown()


def forward(source: socket.socket, target: socket.socket) -> None:
    """Forward data from `source` to `target` until it ends, then shut down `target`."""
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


WRITER = """
    import sys
    from emtta_core.store import CellKey, StepRow, Store

    store, key = Store.open(sys.argv[1], create=True), CellKey("run", "babble", "source")
    rows = [
        StepRow(cell_id="c", attempt=1, utterance_id=f"u{i}", step=i, hypothesis=f"{i * 7919}", entropy=i / 7, tokens=i)
        for i in range(20_000)
    ]
    store.write_steps(key, 1, 0, rows)
"""


def test_killed_put_leaves_nothing(s3: S3Server, bucket: str) -> None:
    halfway = threading.Event()

    def lose_the_rest(client: socket.socket, upstream: socket.socket) -> None:
        threading.Thread(target=forward, args=(upstream, client), daemon=True).start()
        passed = 0
        while data := client.recv(4096):
            passed += len(data)
            if passed < 50_000:
                upstream.sendall(data)
            else:
                halfway.set()

    location = f"s3://{bucket}/store"
    with between(s3, lose_the_rest) as address:
        environment = {**os.environ, "AWS_ENDPOINT_URL": address}
        writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), location], env=environment)
        assert halfway.wait(60)
        writer.kill()
        writer.wait()
    assert s3.objects(bucket) == {"store/.writable": b""}
    subprocess.run([sys.executable, "-c", textwrap.dedent(WRITER), location], check=True)
    (entry,) = Store.open(location).backend.list("steps")
    assert entry.size > 50_000


def test_lost_response_does_no_harm(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = []

    def lose_an_answer(client: socket.socket, upstream: socket.socket) -> None:
        head = client.recv(65_536)
        upstream.sendall(head)
        threading.Thread(target=forward, args=(client, upstream), daemon=True).start()
        if b".parquet" in head.splitlines()[0] and head.startswith(b"PUT") and not lost:
            while answer := upstream.recv(65_536):
                if b" 100 Continue" in answer:  # the client waits for this before it sends the content
                    client.sendall(answer)
                else:
                    lost.append(answer)
            client.shutdown(socket.SHUT_RDWR)
        else:
            forward(upstream, client)

    with between(s3, lose_an_answer) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        store = Store.open(f"s3://{bucket}", create=True)
        write_shard(store, KEY, {"a": [with_errors(1)]})
        assert b"200" in b"".join(lost).splitlines()[0], "the server did write it"
        with pytest.raises(StoreError, match="rows of an attempt are final"):
            write_shard(store, KEY, {"a": [with_errors(0)]})


def test_missing_conditional_put_warns(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ignore_the_condition(client: socket.socket, upstream: socket.socket) -> None:
        threading.Thread(target=forward, args=(upstream, client), daemon=True).start()
        while data := client.recv(65_536):
            upstream.sendall(re.sub(rb"(?i)if-none-match:", b"x-never-heard-of:", data))

    with between(s3, ignore_the_condition) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        store = Store.open(f"s3://{bucket}/store", create=True)
        assert [store.begin_attempt(KEY) for _ in range(3)] == [1, 2, 3]
        write_shard(store, KEY, {"a": [with_errors(1)]})
        with pytest.raises(StoreError, match="rows of an attempt are final"):
            write_shard(store, KEY, {"a": [with_errors(0)]})
    assert caplog.text.count("does not support conditional PUT") == 1


def test_listing_covers_all_objects(s3: S3Server, bucket: str) -> None:
    backend = open_backend(f"s3://{bucket}/store")
    client = s3.client()
    names = [f"cells/run_id=run/{number:04d}" for number in range(1001)]
    for name in names:
        client.put_object(Bucket=bucket, Key=f"store/{name}", Body=b"x")
    client.put_object(Bucket=bucket, Key="store/cells-of-another-kind/x", Body=b"x")
    client.put_object(Bucket=bucket, Key="store/cells/.hidden", Body=b"x")
    assert [entry.name for entry in backend.list("cells")] == names
    backend.remove([*names, "cells/never-there"])
    assert set(s3.objects(bucket)) == {"store/cells-of-another-kind/x", "store/cells/.hidden"}


def test_replaced_file_is_reread(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}/store", create=True)
    one_run(store, "run")
    with Catalogue(store) as catalogue:
        assert catalogue.query("SELECT run_id, suite, wer FROM cells JOIN runs USING (run_id)").rows[0][2] == 25.0
        begin_run(store, "run", [("noise", "babble", "source")], utterances=3)
        assert catalogue.query("SELECT state, planned FROM cells").rows == [("partial", 3)]
        one_run(store, "other", errors=2)
        assert catalogue.query("SELECT run_id, wer FROM cells ORDER BY wer").rows == [("run", 25.0), ("other", 50.0)]
        store.backend.remove([entry.name for entry in store.backend.list("scores/run_id=run")])
        assert catalogue.query("SELECT run_id, wer FROM cells ORDER BY wer").rows == [("other", 50.0), ("run", None)]


def test_removal_breaks_no_query(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}/store", create=True)
    one_run(store, "run")
    with Catalogue(store) as catalogue:
        listings, take = [catalogue.snapshot], catalogue._take
        (entry,) = store.backend.list("scores")
        content = store.backend.read(entry.name)
        # As compaction does: write the new file, then remove the old one.
        store.backend.write(entry.name.replace("001-00000", "001-00009"), content)
        store.backend.remove([entry.name])
        catalogue._take = lambda: listings.pop() if listings else take()  # listed before the change
        assert catalogue.query("SELECT wer FROM cells").rows == [(25.0,)]


def test_one_request_per_file_two_per_table(s3: S3Server, bucket: str) -> None:
    requests: list[bytes] = []

    def count(client: socket.socket, upstream: socket.socket) -> None:
        threading.Thread(target=forward, args=(upstream, client), daemon=True).start()
        head = client.recv(65_536)
        requests.append(head.splitlines()[0])
        upstream.sendall(head)
        forward(client, upstream)

    store = Store.open(f"s3://{bucket}/store", create=True)
    for run_id in ("one", "two", "three"):
        one_run(store, run_id)
    files = [name for name in s3.objects(bucket) if name.endswith(".parquet")]
    with between(s3, count) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        with Catalogue(Store.open(f"s3://{bucket}/store")) as catalogue:
            catalogue.report("leaderboard", "one")
            asked = len(requests)
            assert catalogue.report("domains", "two").rows
    assert sum(b".parquet" in request for request in requests[:asked]) == len(files)
    looks = len(TABLES) + 1  # one listing per table, and one of the packs
    assert sum(b"list-type=2" in request for request in requests[:asked]) <= 1 + 2 * looks, (
        "when it opens and when it is queried"
    )
    assert not any(b".parquet" in request for request in requests[asked:]), "what was read is cached"
    assert len(requests) - asked == looks, "once per query"


def test_copied_folder_is_same_store(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    folder = Store.open(tmp_path, create=True)
    for run_id in ("one", "two"):
        one_run(folder, run_id)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            s3.client().put_object(Bucket=bucket, Key=path.relative_to(tmp_path).as_posix(), Body=path.read_bytes())
    copy = Store.open(f"s3://{bucket}")
    assert copy.runs() == folder.runs()
    assert copy.done(CellKey("one", "babble", "source"), "babble.source").keys() == {"a", "b"}
    with Catalogue(folder) as there, Catalogue(copy) as here:
        assert here.report("leaderboard").rows == there.report("leaderboard").rows


@pytest.fixture(scope="module")
def guarded(s3: S3Server) -> Iterator[tuple[str, Catalogue]]:
    """A bucket, and the catalogue of a store in it, next to files outside the store."""
    bucket = s3.bucket()
    for folder in ("other", "store-two"):
        s3.client().put_object(Bucket=bucket, Key=f"{folder}/secret.csv", Body=b"a\n1\n")
    store = Store.open(f"s3://{bucket}/store", create=True)
    one_run(store, "run")
    (scores,) = store.backend.list("scores")
    s3.client().put_object(Bucket=bucket, Key="other/secret.parquet", Body=store.backend.read(scores.name))
    with Catalogue(store) as catalogue:
        yield bucket, catalogue


@pytest.mark.parametrize(
    "source",
    [
        "read_text('s3://{bucket}/other/secret.csv')",
        "read_csv('s3://{bucket}/other/secret.csv')",
        "'s3://{bucket}/other/secret.csv'",
        "read_parquet('s3://{bucket}/other/secret.parquet')",
        "read_parquet('s3://{bucket}/store/../other/secret.parquet')",
        "read_parquet('{address}/{bucket}/other/secret.parquet')",
        "read_parquet('/etc/hostname')",
        "read_text('s3://{bucket}/store-two/secret.csv')",
        "read_text('s3://{bucket}/store/../other/secret.csv')",
        "glob('s3://{bucket}/*')",
        "read_text('{address}/{bucket}/other/secret.csv')",
        "read_text('/etc/hostname')",
        "glob('/etc/*')",
    ],
)
def test_queries_never_read_outside_store(source: str, guarded: tuple[str, Catalogue], s3: S3Server) -> None:
    bucket, catalogue = guarded
    refused = r"disabled by configuration|is not in the store|does not exist|function \w+ cannot be used here; FROM"
    with pytest.raises(EmttaError, match=refused):
        catalogue.query(f"SELECT * FROM {source.format(bucket=bucket, address=s3.address)}")
    assert catalogue.query("SELECT count(*) FROM raw.scores").rows == [(2,)]


@pytest.mark.parametrize("sql", ["COPY (SELECT 1) TO 's3://{bucket}/store/x.csv'", "ATTACH 's3://{bucket}/store/x'"])
def test_queries_never_write(sql: str, guarded: tuple[str, Catalogue], s3: S3Server) -> None:
    bucket, catalogue = guarded
    before = s3.objects(bucket)
    with pytest.raises(EmttaError, match="only one SELECT at a time can be run here"):
        catalogue.query(sql.format(bucket=bucket))
    assert s3.objects(bucket) == before


@pytest.mark.slow
def test_bucket_run_matches_folder_run(
    emtta: Command,
    suite_file: SuiteFile,
    speech: Speech,
    tmp_path: Path,
    prefect_server: str,
    s3: S3Server,
    bucket: str,
) -> None:
    # With the same audio, a domain could reuse the other's results if these are there by then.
    noisy = CLEAN.replace('"clean"', '"noisy"', 1) + 'corruption = { name = "noise", kind = "typing", snr_db = 5 }\n'
    suite = suite_file(CLEAN + noisy)
    suite.write_text(suite.read_text().replace('isolation = "none"', 'isolation = "process"'))
    store = f"s3://{bucket}/nightly/store"
    dry_run = emtta("run", suite, "--store", store, "--dry-run")
    assert dry_run.code == 0, dry_run.err
    assert s3.objects(bucket) == {}, "a dry run writes nothing"

    first = emtta("run", suite, "--store", store)
    assert first.code == 0, first.err
    assert f"store: {store}" in first.err
    (run_id,) = Store.open(store).runs()
    written = s3.objects(bucket)
    assert b"Finished in state Completed()" in written[f"nightly/store/logs/{run_id}.log"]

    second = emtta("run", suite, "--store", store)
    assert second.code == 0
    assert f"run {run_id}: nothing to do, all of its 4 cells are complete" in second.err
    assert s3.objects(bucket) == written

    assert emtta("run", suite, "--store", tmp_path / "store").code == 0
    for at in (store, tmp_path / "store"):
        failed = emtta("sql", "SELECT * FROM attempts WHERE state <> 'complete'", "--format", "csv", "--store", at).out
        assert failed.count("\n") == 1, failed
    for name in ("leaderboard", "domains", "methods", "coverage", "failures"):
        there, here = (emtta("report", name, "--format", "csv", "--store", at) for at in (store, tmp_path / "store"))
        assert there.code == 0, there.err
        assert there.out == here.out, name
    rows = "SELECT * EXCLUDE (seconds) FROM utterances ORDER BY ALL"
    there, here = (emtta("sql", rows, "--format", "csv", "--store", at) for at in (store, tmp_path / "store"))
    assert there.out.count("\n") == 1 + 4 * 3
    assert there.out == here.out
    assert emtta("status", run_id, "--store", store).code == 0
    assert run_id in emtta("list", "--store", store).out


@pytest.mark.slow
def test_stopped_run_resumes_in_bucket(
    emtta: Command, suite_file: SuiteFile, speech: Speech, prefect_server: str, s3: S3Server, bucket: str
) -> None:
    suite, location = suite_file(methods=("source",)), f"s3://{bucket}/store"
    assert emtta("run", suite, "--store", location).code == 0
    store = Store.open(location)
    (run_id,) = store.runs()
    log = f"logs/{run_id}.log"
    lost = [entry.name for entry in store.backend.list("scores")][-1]
    store.backend.remove([lost])
    before = store.backend.read(log)
    again = emtta("run", suite, "--store", location)
    assert again.code == 0, again.err
    assert "1 cell to do, 1 utterance" in again.err
    assert store.backend.read(log).startswith(before), "its log goes on as well"
    assert emtta("status", run_id, "--store", location).code == 0
