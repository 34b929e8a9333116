"""A local server that answers `huggingface_hub` and `datasets` like the Hugging Face hub.

It has data sets with branches and commits, cards, gates and tokens, and the hub's addresses, headers and error codes
(https://huggingface.co/docs/hub/api, and the source of `huggingface_hub`).
"""

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

TOKEN = "hf_allowed"
"""The token that gives access to gated data sets."""


@dataclass
class DataSet:
    """A data set: its commits, its branches, and whether its terms must be accepted."""

    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    declared: dict[str, int] = field(default_factory=dict)


class Hub:
    """The hub's data sets and models, and the requests that it received."""

    def __init__(self) -> None:
        self.sets: dict[str, DataSet] = {}
        self.models: dict[str, DataSet] = {}
        self.asked: list[str] = []
        self.status: int | None = None
        """The status of every response; None: the regular one."""
        self.url = ""

    def commit(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        configs: Mapping[str, Mapping[str, str]] | None = None,
        gated: bool = False,
        branch: str = "main",
        declared: Mapping[str, int] | None = None,
        model: bool = False,
    ) -> str:
        """Commit files to a branch of a data set or a model, as its only files, and return the commit.

        Args:
            name: the data set or model.
            files: content by path.
            configs: for the card: by configuration, the pattern of each split's files.
            gated: whether terms must be accepted.
            branch: the branch.
            declared: sizes that the list of files states instead of the true ones.
            model: whether it is a model.
        """
        card: dict[str, Any] = {"license": "apache-2.0" if model else "cc-by-4.0"}
        if configs is not None:
            card["configs"] = [
                {
                    "config_name": config,
                    "data_files": [{"split": split, "path": path} for split, path in splits.items()],
                }
                for config, splits in configs.items()
            ]
        readme = f"---\n{yaml.safe_dump(card)}---\n# {name}\n".encode()
        whole = {"README.md": readme, ".gitattributes": b"*.parquet filter=lfs\n", **files}
        sha = hashlib.sha1(b"".join(path.encode() + content for path, content in sorted(whole.items()))).hexdigest()
        found = (self.models if model else self.sets).setdefault(name, DataSet())
        found.gated = gated
        found.commits[sha], found.cards[sha], found.branches[branch] = whole, card, sha
        found.declared.update(declared or {})
        return sha


def parquet(rows: Sequence[Mapping[str, Any]], group: int = 4) -> bytes:
    """Rows as a Parquet file like those on the hub: audio as bytes and path, declared as audio to `datasets`."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    features: dict[str, Any] = {
        name: {"dtype": str(table.schema.field(name).type), "_type": "Value"} for name in table.column_names
    }
    features["audio"] = {"sampling_rate": 16_000, "_type": "Audio"}
    metadata = json.dumps({"info": {"features": features}})
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), sink, row_group_size=group)
    return sink.getvalue()


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub on a local port inside the `with` block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        url = urlsplit(self.path)
        posted = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.hub.asked.append(f"{self.command} {unquote(url.path)} {self.headers.get('Range', '')}".strip())
        if self.hub.status is not None:
            return self._send(self.hub.status, b"{}", body=body)
        kind, path = (
            ("sets", url.path.replace("datasets/", "", 1)) if "/datasets/" in url.path else ("models", url.path)
        )
        api = re.fullmatch(r"/api/(?:models/)?([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path)
        file = re.fullmatch(r"/(?:api/resolve-cache/)?(?:models/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = api or file
        if match is None:
            return self._send(404, b"{}", body=body)
        found = getattr(self.hub, kind).get(match[1])
        if found is None:
            return self._refuse(401, "RepoNotFound", body=body)
        revision = unquote((api[3] if api else match[2]) or "main")
        sha = found.branches.get(revision, revision)
        if sha not in found.commits:
            return self._refuse(404, "RevisionNotFound", body=body)
        if api is None:
            return self._file(found, sha, unquote(match[3]), body=body)
        return self._api(match[1], found, sha, api[2] or "revision", unquote(api[4] or ""), url.query, posted, body)

    def _api(
        self, name: str, found: DataSet, sha: str, kind: str, below: str, query: str, posted: str, body: bool
    ) -> None:
        files = found.commits[sha]
        if kind == "revision":
            siblings = [
                {"rfilename": path, "size": self._size(found, sha, path), "blobId": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            info = {"id": name, "sha": sha, "private": False, "gated": "auto" if found.gated else False}
            metadata = info | {
                "siblings": siblings,
                "cardData": found.cards[sha],
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
            return self._send(200, json.dumps(metadata).encode(), body=body)
        if kind == "paths-info":
            wanted = json.loads(posted)["paths"] if posted.startswith("{") else parse_qs(posted)["paths"]
            return self._send(200, json.dumps(self._entries(found, sha, wanted)).encode(), body=body)
        prefix = f"{below}/" if below else ""
        inside = [path for path in files if path.startswith(prefix)]
        if not inside:
            return self._refuse(404, "EntryNotFound", body=body)
        if parse_qs(query).get("recursive", ["false"])[0].lower() in ("true", "1"):
            folders = {"/".join(path.split("/")[:depth]) for path in inside for depth in range(1, path.count("/") + 1)}
            wanted = [*sorted(folder for folder in folders if folder.startswith(prefix)), *inside]
        else:
            wanted = sorted({prefix + path[len(prefix) :].split("/")[0] for path in inside})
        return self._send(200, json.dumps(self._entries(found, sha, wanted)).encode(), body=body)

    def _entries(self, found: DataSet, sha: str, paths: Sequence[str]) -> list[dict[str, Any]]:
        entries = []
        for path in paths:
            if path in found.commits[sha]:
                size, oid = len(found.commits[sha][path]), hashlib.sha1(found.commits[sha][path]).hexdigest()
                entries.append({"type": "file", "path": path, "size": size, "oid": oid})
            elif any(name.startswith(f"{path}/") for name in found.commits[sha]):
                entries.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
        return entries

    def _file(self, found: DataSet, sha: str, path: str, *, body: bool) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if found.gated and token != TOKEN and path != "README.md":
            return self._refuse(403 if token else 401, "GatedRepo", body=body)
        content = found.commits[sha].get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound", body=body, commit=sha)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self._send(206, content[first : last + 1], body=body, headers=headers)
        return self._send(200, content, body=body, headers=headers)

    def _size(self, found: DataSet, sha: str, path: str) -> int:
        return found.declared.get(path, len(found.commits[sha][path]))

    def _refuse(self, status: int, code: str, *, body: bool, commit: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code} | ({"X-Repo-Commit": commit} if commit else {})
        self._send(status, json.dumps({"error": code}).encode(), body=body, headers=headers)

    def _send(self, status: int, content: bytes, *, body: bool, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
