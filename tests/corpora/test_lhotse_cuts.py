"""Lhotse cuts: unsupported or invalid ones are refused by line; a missing lhotse names the command to install it."""

import json
import sys
from pathlib import Path

import pytest
from corpora_factory import put, sound

from emtta_core.corpora.folder import Folder
from emtta_core.errors import UsageError

CUT = {
    "id": "c",
    "start": 0.0,
    "duration": 0.5,
    "channel": 0,
    "type": "MonoCut",
    "supervisions": [{"id": "s", "recording_id": "r", "start": 0, "duration": 0.5, "channel": 0, "text": "x"}],
    "recording": {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": "a.flac"}],
        "sampling_rate": 16_000,
        "num_samples": 8_000,
        "duration": 0.5,
    },
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "MixedCut"}, r"line 2: it is a 'MixedCut', and only cuts of one channel .*save_audios"),
        ({"supervisions": CUT["supervisions"] * 2}, r"line 2, cut 'c': it has 2 supervisions, .*trim-to-supervisions"),
        ({"recording": None}, r"line 2, cut 'c': it has no recording"),
        (
            {"sources": [{"type": "command", "channels": [0], "source": "cat a"}]},
            r"cut 'c': its audio comes from command",
        ),
        ({"sources": [{"type": "file", "channels": [0, 1], "source": "a"}]}, r"cut 'c': its recording has 2 channels"),
        ({"transforms": [{"name": "Speed", "kwargs": {"factor": 0.9}}]}, r"transforms Speed, which are not applied"),
        ({"id": "b"}, r"line 2: 'b': the id 'b' is already used in line 1"),
        ({"duration": None}, r"line 2, cut 'c': its start and duration, .* must be numbers of seconds"),
        ({"duration": -1.0}, r"line 2: -1\.0: a segment must be longer than 0 seconds"),
        ({"supervisions": 7}, r"line 2: lhotse cannot read it: "),
    ],
)
def test_bad_cut_is_located(tmp_path: Path, change: dict[str, object], message: str) -> None:
    pytest.importorskip("lhotse", reason="the extra lhotse is not installed")
    inner = {name: value for name, value in change.items() if name in ("sources", "transforms")}
    recording = dict(CUT["recording"]) | inner | ({"channel_ids": [0, 1]} if "2 channels" in message else {})
    second = CUT | {"recording": recording} | {name: value for name, value in change.items() if name not in inner}
    if second["recording"] is None:
        del second["recording"]
    put(tmp_path, {"a.flac": sound(0.5), "cuts.jsonl": "\n".join(map(json.dumps, [CUT | {"id": "b"}, second]))})
    with pytest.raises(UsageError, match=message):
        Folder(path=str(tmp_path)).count()


def test_missing_lhotse_names_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, {"a.flac": sound(0.5), "night.jsonl": json.dumps(CUT)})
    monkeypatch.setitem(sys.modules, "lhotse.serialization", None)
    with pytest.raises(
        UsageError, match=r"night\.jsonl has Lhotse's cuts, .* not installed: pip install 'emtta\[lhotse\]'"
    ):
        Folder(path=str(tmp_path), manifest="night.jsonl").count()


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b cut short", b"no gzip"])
def test_broken_cuts_are_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("lhotse", reason="the extra lhotse is not installed")
    put(tmp_path, {"cuts.jsonl.gz": content})
    with pytest.raises(UsageError, match=r"cuts\.jsonl\.gz (cannot be read: |has no cuts)"):
        Folder(path=str(tmp_path)).count()
