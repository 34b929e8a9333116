"""Each Kaldi table is used or reported as unused; errors give the table and line."""

import json
from pathlib import Path

import pytest
from corpora_factory import put, sound

from emtta_core.corpora.folder import Folder
from emtta_core.errors import AudioError, UsageError


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"wav.scp": "a sph2pipe -f wav a.sph |\n", "text": "a x\n"},
            r"wav\.scp, line 1: 'sph2pipe .*commands are not run; write",
        ),
        ({"wav.scp": "a b.ark:17\n", "text": "a x\n"}, r"wav\.scp, line 1: 'b\.ark:17': it is in an archive"),
        (
            {"wav.scp": "a a.flac\na b.flac\n", "text": "a x\n"},
            r"wav\.scp, line 2: the id 'a' is already used in line 1",
        ),
        ({"wav.scp": "a\n", "text": "a x\n"}, r"wav\.scp, line 1: there is nothing after 'a'"),
        ({"wav.scp": "r a.flac\n", "text": "a x\n", "segments": "a q 0 1\n"}, r"segments, line 1: .*'q' is not in"),
        ({"wav.scp": "r a.flac\n", "text": "a x\n", "segments": "a r 0\n"}, r"segments, line 1: 'r 0': a segment is"),
        ({"wav.scp": "r a.flac\n", "text": "a x\n", "segments": "a r 2 1\n"}, r"segments, line 1: 1\.0: .*after its"),
        ({"wav.scp": "a a.flac\n"}, r"text cannot be read: No such file"),
        ({"wav.scp": "a a.flac\n", "text": b"a \xff\n"}, r"text, line 1: the byte 0xff is not UTF-8"),
        ({"wav.scp": "a a.flac\n", "text": "a x", "reco2file_and_channel": "a a B\n"}, r"line 1: 'a B': it names a ch"),
        ({"wav.scp": "a a.flac\n", "text": "a x", "utt2lang": "\na English\n"}, r"utt2lang, line 2: 'English': .*ISO"),
    ],
)
def test_kaldi_mistake_is_located(tmp_path: Path, files: dict[str, bytes | str], message: str) -> None:
    put(tmp_path, {"a.flac": sound(0.5), "b.flac": sound(0.6), **files})
    with pytest.raises(UsageError, match=message):
        Folder(path=str(tmp_path)).count()


def test_kaldi_tables_are_used(tmp_path: Path) -> None:
    tables = {"wav.scp": "a\ta.flac\nb  b.flac\n", "text": "a x y\nc lonely\n", "utt2spk": "a anna\nb ben\n"}
    tables |= {"spk2gender": "anna f\nben m\n", "spk2utt": "anna a\nben b\n", "feats.scp": "a f.ark:1\n"}
    put(tmp_path, {"a.flac": sound(0.5), "b.flac": sound(0.6), **tables})
    folder = Folder(path=str(tmp_path), manifest="wav.scp")
    first, second = folder.read_all()
    assert (first.id, first.text, first.language, first.speaker) == ("a", "x y", "en", "anna")
    assert json.loads(first.metadata) == {"gender": "f"}
    with pytest.raises(AudioError, match="text has no line for b: write its transcript there"):
        second.read()
    assert folder.count().notes == (
        "lines of text without a recording or a segment, and not used: c",
        "tables that are not used: feats.scp",
        "columns kept as metadata: gender",
    )
