"""Problems with a store in an object store are reported with a remedy."""

import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Command
from s3_server import S3Server
from store_factory import one_run

from emtta_core.errors import StoreError, UsageError
from emtta_core.faults import is_transient
from emtta_core.store import Catalogue, Store
from emtta_core.store.backend import open_backend


def test_missing_bucket_names_command(s3: S3Server) -> None:
    for ask in (lambda backend: backend.is_there(), lambda backend: backend.make(), lambda backend: backend.read("x")):
        with pytest.raises(StoreError, match=r"there is no bucket 'nowhere' at http://127.*aws s3 mb s3://nowhere"):
            ask(open_backend("s3://nowhere/store"))


def test_missing_store_names_command(s3: S3Server, bucket: str) -> None:
    with pytest.raises(StoreError, match=rf"no store at s3://{bucket}/a; `emtta run SUITE --store s3://{bucket}/a`"):
        Store.open(f"s3://{bucket}/a/")
    assert Store.find(f"s3://{bucket}/a") is None
    assert s3.objects(bucket) == {}


def test_missing_credentials_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreError, match="there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Store.open(f"s3://{bucket}/store", create=True)


def test_denied_access_names_permission(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    iam = boto3.client(
        "iam", endpoint_url=s3.address, region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    iam.create_user(UserName=bucket)
    statement = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=bucket, PolicyName="reads", PolicyDocument=policy)
    key = iam.create_access_key(UserName=bucket)["AccessKey"]
    one_run(Store.open(f"s3://{bucket}/store", create=True), "run")
    with enforcing(s3):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        store = Store.open(f"s3://{bucket}/store")
        with Catalogue(store) as catalogue:
            assert catalogue.query("SELECT wer FROM cells").rows == [(25.0,)], "reading is all that reports need"
        with pytest.raises(StoreError, match=r"cannot write .*denies access .*s3:PutObject"):
            Store.open(f"s3://{bucket}/store", create=True)
        with pytest.raises(StoreError, match=r"cannot remove .*s3:DeleteObject"):
            store.backend.remove(["runs/run_id=run/run.parquet"])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODYKNOWSME000")
        with pytest.raises(StoreError, match=r"rejects the credentials .*check AWS_ACCESS_KEY_ID"):
            Store.open(f"s3://{bucket}/store")


@contextmanager
def enforcing(server: S3Server) -> Iterator[None]:
    """Make the server check the permissions of each request inside the `with` block."""

    def after(requests: bytes) -> None:
        address, head = f"{server.address}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(address, requests, head)).close()

    after(b"0")
    try:
        yield
    finally:
        after(b"inf")


def test_unresponsive_server_is_retryable(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(StoreError, match=rf"http://127.0.0.1:{port} does not answer .*AWS_ENDPOINT_URL") as refusal:
        Store.open(f"s3://{bucket}/store", create=True)
    assert is_transient(refusal.value)


def test_invalid_address_is_reported(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    with pytest.raises(StoreError, match="set AWS_ENDPOINT_URL to a URL"):
        Store.open(f"s3://{bucket}/store")


@pytest.mark.parametrize(
    "location",
    ["s3://", "s3://b", "s3:/bucket/x", "s3://Bucket/x", "s3://bucket/a=b", "s3://bucket/*", "s3://bucket/../x"],
)
def test_invalid_location_is_refused(location: str) -> None:
    with pytest.raises(UsageError, match=r"is not a store; write s3://BUCKET/PREFIX"):
        open_backend(location)


def test_other_scheme_lists_known() -> None:
    with pytest.raises(UsageError, match=r"'gs://bucket/x'; choose from: a folder, or s3://BUCKET/PREFIX"):
        open_backend("gs://bucket/x")


def test_missing_extra_names_install(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["s3fs"] = sys.modules["botocore"] = None  # as where they are not installed
from emtta_core.store import Catalogue, Store
Catalogue(Store.open(sys.argv[1], create=True)).report("runs")
Store.open("s3://bucket/store")
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert "StoreError: the store s3://bucket/store needs the package s3fs" in ended.stderr
    assert "pip install 'emtta[s3]'" in ended.stderr
    assert (tmp_path / ".writable").exists() is False


class Incomplete(BaseHTTPRequestHandler):
    """A server that supports no S3 request."""

    protocol_version = "HTTP/1.1"

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"<Error><Code>NotImplemented</Code><Message>not implemented</Message></Error>"
        self.send_response(501)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


for verb in ("GET", "PUT", "POST", "HEAD", "DELETE"):
    setattr(Incomplete, f"do_{verb}", Incomplete.refuse)


def test_unsupported_request_is_explained(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Incomplete) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        backend = open_backend(f"s3://{bucket}/store")
        for ask in (lambda: list(backend.list("runs")), lambda: backend.write("x", b"x"), lambda: backend.read("x")):
            with pytest.raises(StoreError, match=r"its server does not support this S3 request .*use another server"):
                ask()
        server.shutdown()


def test_doctor_leaves_bucket_clean(emtta: Command, s3: S3Server, bucket: str) -> None:
    assert f"s3://{bucket}/new can be created" in emtta("doctor", "--store", f"s3://{bucket}/new").out
    assert s3.objects(bucket) == {}
    assert "there is no bucket 'nowhere'" in emtta("doctor", "--store", "s3://nowhere").out


def test_store_error_prints_only_message(emtta: Command, s3: S3Server) -> None:
    outcome = emtta("list", "--store", "s3://nowhere/store")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: cannot list s3://nowhere/store: there is no bucket 'nowhere'")
    outcome = emtta("list", "--store", "gs://bucket/store")
    assert (outcome.code, outcome.out) == (2, "")
