"""Corpora on the hub: read as `datasets` reads them, pinned to a commit, and streamed if few utterances are needed.

Each kind of failure has its own message.
"""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from corpora_factory import ami_hub, librispeech_hub, librispeech_rows
from hub_server import TOKEN, Hub, parquet

from emtta_core.corpora import hub_split
from emtta_core.corpora.hub_dataset import Ami
from emtta_core.corpora.librispeech import LibriSpeech
from emtta_core.errors import AudioError, CorpusError, UsageError
from emtta_core.faults import is_transient
from emtta_core.hub import UnreachableHubError


def downloads(hub: Hub) -> list[str]:
    return [line for line in hub.asked if line.startswith("GET /datasets/") and "bytes=" not in line]


def test_rows_of_all_files_are_in_order(hub: Hub) -> None:
    librispeech_hub(hub)
    found = list(LibriSpeech().read_all())
    assert [(one.id, one.text, one.language, one.speaker) for one in found] == [
        (row["id"], row["text"], "en", str(row["speaker_id"])) for row in librispeech_rows()
    ]
    assert [one.read().size for one in found] == [4_800 + 1_600 * index for index in range(6)]
    assert [one.seconds() for one in found] == pytest.approx([0.3 + 0.1 * index for index in range(6)])


def test_datasets_reads_same_rows(hub: Hub, tmp_path: Path) -> None:
    librispeech_hub(hub)
    script = (
        "from datasets import Audio, load_dataset\n"
        "rows = load_dataset('openslr/librispeech_asr', 'all', split='test.other')\n"
        "print([row['id'] for row in rows.cast_column('audio', Audio(decode=False))])"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([one.id for one in LibriSpeech().read_all()]), done.stderr


def test_files_are_fetched_once(hub: Hub) -> None:
    librispeech_hub(hub)
    for _ in range(2):
        assert len(list(LibriSpeech().read_all())) == 6
    assert len(downloads(hub)) == 2


def test_few_rows_need_no_fetch(hub: Hub, tmp_path: Path) -> None:
    librispeech_hub(hub, librispeech_rows(40))
    assert len(list(LibriSpeech(utterances=3).read_all())) == 3
    assert len(list(LibriSpeech().read_all(2))) == 2
    assert not downloads(hub)
    assert not list((tmp_path / "hub").rglob("*.parquet"))


def test_counting_reads_no_audio(hub: Hub) -> None:
    librispeech_hub(hub)
    assert LibriSpeech().count().utterances == 6
    assert LibriSpeech().count(limit=4).utterances == 4
    assert not downloads(hub)
    asked = len(hub.asked)
    settled = LibriSpeech().located()
    assert (settled.count().utterances, len(hub.asked)) == (6, asked + 1)


def test_long_utterances_are_counted(hub: Hub) -> None:
    librispeech_hub(hub)
    corpus = LibriSpeech(max_seconds=0.55)
    assert [one.text for one in corpus.read_all()] == [row["text"] for row in librispeech_rows()[:3]]
    assert (corpus.count().utterances, corpus.count().left_out) == (3, 3)
    assert (corpus.count(limit=2).utterances, corpus.count(limit=2).left_out) == (2, 2)


def test_branch_is_pinned_to_commit(hub: Hub) -> None:
    first = librispeech_hub(hub)
    settled, content = LibriSpeech().located(), LibriSpeech().content_digest()
    assert settled.revision == first
    second = librispeech_hub(hub, librispeech_rows(4))
    assert LibriSpeech().located().revision == second
    assert LibriSpeech().content_digest() != content == settled.content_digest()
    assert len(list(settled.read_all())) == 6
    assert len(list(LibriSpeech(revision=first).read_all())) == 6


def test_offline_uses_cached_commit(hub: Hub) -> None:
    librispeech_hub(hub)
    content = LibriSpeech().content_digest()
    read = [one.id for one in LibriSpeech().read_all()]
    hub.status = 503
    assert LibriSpeech().content_digest() == content
    assert LibriSpeech().count().utterances == 6
    assert [one.id for one in LibriSpeech().read_all()] == read


def test_identity_follows_audio_not_card(hub: Hub) -> None:
    def settled(rows: int, **extra: bytes) -> LibriSpeech:
        path = "all/test.other-00000-of-00001.parquet"
        files = {path: parquet(librispeech_rows(rows)), **extra}
        hub.commit("openslr/librispeech_asr", files, configs={"all": {"test.other": path}})
        return LibriSpeech().located()

    before, annotated, changed = settled(2), settled(2, NOTES=b"corrected"), settled(3)
    assert len({before.revision, annotated.revision, changed.revision}) == 3
    assert before.content_digest() == annotated.content_digest() != changed.content_digest()
    assert before.identity() == annotated.identity() == LibriSpeech().identity()


def test_missing_network_suggests_remedy(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableHubError, match=r"cannot be downloaded from http://127\.0\.0\.1:9: .*EMTTA_CORPORA"):
        LibriSpeech().located()


def test_offline_mode_is_reported(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableHubError, match="HF_HUB_OFFLINE is set; connect to the network"):
        LibriSpeech().located()


def test_gated_set_opens_with_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    librispeech_hub(hub, gated=True)
    with pytest.raises(CorpusError, match=r"is gated, and no token is set; accept its terms at http.*set HF_TOKEN"):
        LibriSpeech().count()
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(CorpusError, match="is gated, and the token in use has no access"):
        list(LibriSpeech().read_all())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(list(LibriSpeech().read_all())) == 6


def test_missing_name_lists_existing(hub: Hub) -> None:
    with pytest.raises(CorpusError, match=r"no data set openslr/librispeech_asr at http"):
        LibriSpeech().located()
    librispeech_hub(hub)
    with pytest.raises(UsageError, match=r"has no revision 'v9'; give a branch"):
        LibriSpeech(revision="v9").located()
    with pytest.raises(UsageError, match=r"no split 'validation.other' of 'all' .*all: test.clean, test.other; "):
        LibriSpeech(split="dev-other").located()


def test_converted_parquet_is_fallback(hub: Hub) -> None:
    hub.commit("openslr/librispeech_asr", {"librispeech_asr.py": b"raise SystemExit"})
    with pytest.raises(UsageError, match="it has no Parquet at all"):
        LibriSpeech().located()
    files = {"all/test.other/0000.parquet": next(iter(hub_files(hub).values()))}
    converted = hub.commit("openslr/librispeech_asr", files, branch="refs/convert/parquet")
    assert LibriSpeech().located().revision == converted
    assert len(list(LibriSpeech().read_all())) == 6


def test_partial_conversion_warns_once(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.commit("edinburghcstr/ami", {"ami.py": b"raise SystemExit"})
    ami_hub(hub, branch="refs/convert/parquet")
    hub_split._warn_of_partial.cache_clear()
    with caplog.at_level(logging.WARNING, "emtta.corpora"):
        assert len(list(Ami().read_all())) == Ami().count().utterances == 2
    (message,) = caplog.messages
    assert "edinburghcstr/ami, ihm, test: the hub's conversion is marked partial" in message


def hub_files(hub: Hub) -> dict[str, bytes]:
    other = Hub()
    sha = librispeech_hub(other)
    whole = other.sets["openslr/librispeech_asr"].commits[sha]
    return {path: content for path, content in whole.items() if path.startswith("other/")}


def test_low_disk_is_refused_before_fetch(hub: Hub) -> None:
    librispeech_hub(hub, declared={"all/test.other-00000-of-00002.parquet": 10**17})
    with pytest.raises(
        CorpusError, match=r"the download of openslr/librispeech_asr takes 100000000\.00 GB, but .* HF_HUB_CACHE"
    ):
        list(LibriSpeech().read_all())
    assert not downloads(hub)


def test_broken_audio_fails_alone(hub: Hub) -> None:
    rows = librispeech_rows()
    rows[1]["audio"]["bytes"] = rows[1]["audio"]["bytes"][:200]
    rows[2]["audio"]["bytes"] = None
    librispeech_hub(hub, rows)
    found = list(LibriSpeech(max_seconds=20).read_all())
    with pytest.raises(AudioError, match=f"{found[1].id}: "):
        found[1].read()
    with pytest.raises(AudioError, match="its row has no audio"):
        found[2].read()
    assert found[3].read().size == 9_600


def test_other_schema_is_refused(hub: Hub) -> None:
    librispeech_hub(hub, [{name: value for name, value in row.items() if name != "text"} for row in librispeech_rows()])
    with pytest.raises(CorpusError, match=r"has no column text, only file, audio, speaker_id"):
        list(LibriSpeech().read_all())


def test_outage_is_transient_gate_is_not(hub: Hub) -> None:
    hub.status = 503
    with pytest.raises(
        UnreachableHubError, match="answers 503 when asked for data set openslr/librispeech_asr"
    ) as unreachable:
        LibriSpeech().located()
    assert is_transient(unreachable.value)
    hub.status = None
    librispeech_hub(hub, gated=True)
    with pytest.raises(CorpusError, match="is gated") as gated:
        LibriSpeech().count()
    assert not is_transient(gated.value)


@pytest.mark.parametrize("status", [408, 429])
def test_rate_limit_is_transient(hub: Hub, status: int) -> None:
    librispeech_hub(hub)
    content = LibriSpeech().content_digest()
    hub.status = status
    assert LibriSpeech().content_digest() == content, "the last known commit serves"
    with pytest.raises(UnreachableHubError, match=f"answers {status} when asked for") as unreachable:
        LibriSpeech(revision="v9").located()
    assert is_transient(unreachable.value)


@pytest.mark.parametrize("status", [401, 403])
def test_denied_access_names_token(hub: Hub, status: int) -> None:
    librispeech_hub(hub)
    pinned = LibriSpeech().located()
    assert pinned.count().utterances == 6
    hub.status = status
    with pytest.raises(CorpusError, match=f"answers {status} when asked for .*; check HF_TOKEN") as refused:
        list(pinned.read_all())
    assert not isinstance(refused.value, UnreachableHubError)
    assert not is_transient(refused.value)


def test_deleted_file_is_reported(hub: Hub) -> None:
    commit = librispeech_hub(hub)
    assert LibriSpeech().count().utterances == 6
    del hub.sets["openslr/librispeech_asr"].commits[commit]["all/test.other-00001-of-00002.parquet"]
    with pytest.raises(CorpusError, match=r"a file of data set openslr/librispeech_asr is gone from http"):
        list(LibriSpeech(revision=commit).read_all())


def test_silent_server_times_out(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emtta_core.hub.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UnreachableHubError, match="timed out"):
            LibriSpeech().located()


def test_unwritable_cache_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    librispeech_hub(hub)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(CorpusError, match=r"cannot be saved in .*/file/hub: Not a directory; set HF_HUB_CACHE"):
        list(LibriSpeech().read_all())


@pytest.mark.parametrize(
    "damaged",
    [
        lambda content: b"PAR1",
        lambda content: content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :],
    ],
    ids=["cut off", "rows"],
)
def test_corrupt_file_suggests_refetch(hub: Hub, tmp_path: Path, damaged: Callable[[bytes], bytes]) -> None:
    librispeech_hub(hub)
    assert len(list(LibriSpeech().read_all())) == 6
    whole = {path: path.resolve().read_bytes() for path in (tmp_path / "hub").rglob("*.parquet")}
    for path, content in whole.items():
        path.resolve().write_bytes(damaged(content))
    with pytest.raises(CorpusError, match=r"test\.other-00000\S+ of \S+ cannot be read: .*`hf cache rm`"):
        list(LibriSpeech().read_all())
