"""An S3 server on loopback, in its own process: moto, which keeps objects in memory.

    python tests/support/s3_server.py

prints its address. It handles one request at a time, so that a conditional PUT is atomic, as in S3; moto checks and
writes in two steps.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # otherwise it is queried for credentials
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}

_numbers = count()


class S3Server:
    """A running server.

    Attributes:
        address: its URL, for `AWS_ENDPOINT_URL`.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def environment(self) -> dict[str, str]:
        """The environment that a process needs to reach the server."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.address}

    def client(self) -> Any:
        """A boto3 client, which shares no code with the store."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.address,
            region_name="eu-central-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )

    def bucket(self) -> str:
        """Create a bucket, and return its name."""
        name = f"bucket-{next(_numbers)}"
        self.client().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        return name

    def objects(self, bucket: str) -> dict[str, bytes]:
        """The content of every object in a bucket, by key."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@contextmanager
def serving(log: Path) -> Iterator[S3Server]:
    """Run a server inside the `with` block, with its requests logged to `log`."""
    with log.open("wb") as requests:
        process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, stderr=requests, text=True)
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, f"the server did not start; see {log}"
            yield S3Server(address)
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Serve until killed."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=False, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
