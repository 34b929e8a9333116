"""The published corpora, in the layouts in which they are distributed.

One long file, because every corpus must meet the same requirements, as a folder and on the hub.
"""

import itertools
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from corpora_factory import (
    ami_hub,
    common_voice_folder,
    common_voice_hub,
    fleurs_folder,
    fleurs_hub,
    l2arctic_folder,
    librispeech_folder,
    librispeech_hub,
    librispeech_rows,
    marked,
    mls_folder,
    mls_hub,
    put,
    sound,
    tedlium_folder,
    tedlium_hub,
)
from hub_server import Hub, parquet
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from emtta_core.corpora.base import Count
from emtta_core.corpora.common_voice import CommonVoice
from emtta_core.corpora.fleurs import Fleurs
from emtta_core.corpora.hub_dataset import Ami
from emtta_core.corpora.l2arctic import EXCEPTIONS, SPEAKERS, L2Arctic
from emtta_core.corpora.librispeech import CODES, LibriSpeech, MultilingualLibriSpeech
from emtta_core.corpora.registry import Corpus
from emtta_core.corpora.tedlium import TedLium
from emtta_core.errors import AudioError, CorpusError, UsageError
from emtta_core.suite import parse_suite

SUITE = """
name = "t"
methods = ["source"]
model = {{ name = "demo" }}
domains = [{{ name = "x", group = "g", corpus = {} }}]
"""


def test_librispeech_folder_matches_hub(tmp_path: Path, hub: Hub) -> None:
    librispeech_hub(hub)
    root = librispeech_folder(tmp_path)
    (root / "test-other" / "README.TXT").write_text("not a speaker")
    here, there = list(LibriSpeech(path=str(root)).read_all()), list(LibriSpeech().read_all())
    fields = [(one.id, one.text, one.language, one.speaker, one.read().size) for one in here]
    assert sorted(fields) == sorted((one.id, one.text, one.language, one.speaker, one.read().size) for one in there)
    assert [one.speaker for one in here] == ["1688"] * 3 + ["367"] * 3


@pytest.mark.parametrize("below", ["", "LibriSpeech", "LibriSpeech/test-other"])
def test_path_may_name_parent_or_split(tmp_path: Path, below: str) -> None:
    librispeech_folder(tmp_path)
    assert len(list(LibriSpeech(path=str(tmp_path / below)).read_all())) == 6


def test_corpora_folder_is_searched_before_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    librispeech_hub(hub)
    librispeech_folder(tmp_path / "b", count=4)
    monkeypatch.setenv("EMTTA_CORPORA", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    settled = LibriSpeech().located()
    assert settled.path == str(tmp_path / "b" / "LibriSpeech" / "test-other")
    assert (settled.count().utterances, hub.asked) == (4, [])
    assert LibriSpeech(split="test-clean").located().path is None


def test_missing_folder_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"LibriSpeech test-other is not in .*openslr\.org/12 and extract it"):
        LibriSpeech(path=str(tmp_path)).count()


def test_identity_is_samples_not_location(tmp_path: Path) -> None:
    root = librispeech_folder(tmp_path / "one")
    moved = shutil.copytree(root, tmp_path / "two" / "LibriSpeech")
    before = LibriSpeech(path=str(root)).content_digest()
    assert LibriSpeech(path=str(moved)).content_digest() == before
    next(moved.rglob("*.flac")).write_bytes(librispeech_rows()[5]["audio"]["bytes"])
    assert LibriSpeech(path=str(moved)).content_digest() != before


def test_empty_split_or_text_is_refused(tmp_path: Path) -> None:
    root = librispeech_folder(tmp_path)
    (root / "dev-clean").mkdir()
    with pytest.raises(CorpusError, match=r"dev-clean has no transcript .* the split is empty"):
        LibriSpeech(path=str(root), split="dev-clean").count()
    transcript = next(root.rglob("*.trans.txt"))
    transcript.write_text("1688-142285-0000\n")
    with pytest.raises(CorpusError, match=r"trans\.txt have '1688-142285-0000' as line 1, with no text"):
        LibriSpeech(path=str(root)).count()


def test_missing_file_fails_alone(tmp_path: Path) -> None:
    root = librispeech_folder(tmp_path)
    transcript = root / "test-other/1688/142285/1688-142285.trans.txt"
    transcript.write_text("\n".join(transcript.read_text().splitlines()[1:]) + "\n")
    (root / "test-other/1688/142285/1688-142285-0002.flac").unlink()
    found = list(LibriSpeech(path=str(root), max_seconds=20).read_all())
    assert len(found) == 6
    with pytest.raises(AudioError, match="has no transcript of 1688-142285-0000"):
        found[0].read()
    with pytest.raises(AudioError, match=r"1688-142285-0002\.flac: cannot be read"):
        found[2].read()
    assert found[1].read().size


def summaries(corpus: Corpus) -> list[tuple[str, str, str, str, int]]:
    """Return all fields of each utterance, with its length in samples."""
    return [(one.id, one.text, one.language, one.speaker, one.read().size) for one in corpus.read_all()]


LIBRISPEECH_SPLITS = {
    "test-clean": "test.clean",
    "test-other": "test.other",
    "dev-clean": "validation.clean",
    "dev-other": "validation.other",
    "train-clean-100": "train.clean.100",
    "train-clean-360": "train.clean.360",
    "train-other-500": "train.other.500",
}
"""The hub's name for each split."""


@pytest.mark.parametrize("split", LIBRISPEECH_SPLITS)
def test_librispeech_splits_are_right(tmp_path: Path, hub: Hub, split: str) -> None:
    rows = {name: [row | {"text": row["text"] + name} for row in librispeech_rows(1)] for name in LIBRISPEECH_SPLITS}
    files = {f"all/{LIBRISPEECH_SPLITS[name]}.parquet": parquet(found) for name, found in rows.items()}
    configs = {"all": {there: f"all/{there}.parquet" for there in LIBRISPEECH_SPLITS.values()}}
    hub.commit("openslr/librispeech_asr", files, configs=configs)
    wanted = LibriSpeech.model_validate({"split": split})
    assert [one.text for one in wanted.read_all()] == [rows[split][0]["text"]]
    root = librispeech_folder(tmp_path, split)
    assert wanted.model_copy(update={"path": str(root)}).located().path == str(root / split)


MLS_PARTS = list(itertools.product(("german", "dutch"), ("test", "dev", "train")))
COMMON_VOICE_PARTS = list(itertools.product(("pt", "de"), ("test", "validation", "train")))
FLEURS_PARTS = list(itertools.product(("de_de", "fr_fr"), ("test", "dev", "train")))
AMI_PARTS = list(itertools.product(("ihm", "sdm"), ("test", "validation", "train")))


@pytest.mark.parametrize(("language", "split"), MLS_PARTS)
def test_mls_splits_are_right(tmp_path: Path, hub: Hub, language: str, split: str) -> None:
    mls_hub(hub, MLS_PARTS)
    for part in MLS_PARTS:
        mls_folder(tmp_path, *part)
    wanted = MultilingualLibriSpeech.model_validate({"language": language, "split": split})
    texts = [marked(f"sieben kleine boote {index}", language, split) for index in range(3)]
    assert [one[1] for one in summaries(wanted)] == texts
    for below in ("", f"mls_{language}", f"mls_{language}/{split}"):
        assert summaries(wanted.model_copy(update={"path": str(tmp_path / below)})) == summaries(wanted)


@pytest.mark.parametrize(("language", "split"), COMMON_VOICE_PARTS)
@pytest.mark.parametrize(
    "card", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["by its card", "by its folders"]
)
def test_common_voice_splits_are_right(tmp_path: Path, hub: Hub, language: str, split: str, card: bool) -> None:
    common_voice_hub(hub, COMMON_VOICE_PARTS, card=card)
    for part in sorted(COMMON_VOICE_PARTS):  # `test` writes an empty dev.tsv, which `validation` then fills
        common_voice_folder(tmp_path, *part)
    wanted = CommonVoice.model_validate({"language": language, "split": split})
    texts = [marked(f'Ele disse: "sim" {index}.', language, split) for index in range(3)]
    assert [one[1] for one in summaries(wanted)] == texts
    for below in ("", "cv-corpus-22.0-2025-06-20", f"cv-corpus-22.0-2025-06-20/{language}"):
        assert summaries(wanted.model_copy(update={"path": str(tmp_path / below)})) == summaries(wanted)


@pytest.mark.parametrize(("language", "split"), FLEURS_PARTS)
@pytest.mark.parametrize("card", [True, False], ids=["by its card", "by its folders"])
def test_fleurs_splits_are_right(tmp_path: Path, hub: Hub, language: str, split: str, card: bool) -> None:
    fleurs_hub(hub, FLEURS_PARTS, card=card)
    for part in FLEURS_PARTS:
        fleurs_folder(tmp_path, *part)
    wanted = Fleurs.model_validate({"language": language, "split": split})
    texts = [marked(f"Sieben, kleine Boote {index}.", language, split) for index in range(3)]
    assert sorted(one[1] for one in summaries(wanted)) == texts
    for below in ("", "fleurs", f"fleurs/data/{language}"):
        assert summaries(wanted.model_copy(update={"path": str(tmp_path / below)})) == sorted(summaries(wanted))
    assert wanted.count() == Count(3)


@pytest.mark.parametrize(("microphone", "split"), AMI_PARTS)
@pytest.mark.parametrize("branch", ["main", "refs/convert/parquet"])
def test_ami_splits_are_right(hub: Hub, microphone: str, split: str, branch: str) -> None:
    hub.commit("edinburghcstr/ami", {"ami.py": b"raise SystemExit"})
    ami_hub(hub, AMI_PARTS, branch=branch)
    texts = {one[1] for one in summaries(Ami.model_validate({"microphone": microphone, "split": split}))}
    assert texts == {marked("I'VE GOTTEN MM HARDLY ANY", microphone, split)}


@pytest.mark.parametrize("split", ["test", "dev", "train"])
def test_tedlium_splits_are_right(tmp_path: Path, split: str) -> None:
    for other in ("test", "dev", "train"):
        tedlium_folder(tmp_path, other)
    for below in ("", "TEDLIUM_release-3", "TEDLIUM_release-3/legacy", f"TEDLIUM_release-3/legacy/{split}"):
        wanted = TedLium.model_validate({"split": split, "path": str(tmp_path / below)})
        assert next(iter(wanted.read_all())).text == marked("it's late", split)
    elsewhere = tmp_path / "TEDLIUM_release-3/legacy" / ("dev" if split == "test" else "test")
    with pytest.raises(CorpusError, match=f"TED-LIUM 3 {split} is not in "):
        TedLium.model_validate({"split": split, "path": str(elsewhere)}).located()


@pytest.mark.parametrize("opus", [False, True])
def test_mls_folder_matches_hub(tmp_path: Path, hub: Hub, opus: bool) -> None:
    mls_hub(hub)
    root = mls_folder(tmp_path, opus=opus)
    there = summaries(MultilingualLibriSpeech(language="german"))
    assert summaries(MultilingualLibriSpeech(language="german", path=str(root))) == there
    assert there[2] == ("2422_1234_000002", "sieben kleine boote 2", "de", "2422", 8_000)
    with pytest.raises(UsageError, match=r"no split 'test' of 'polish' .* choose from: dutch: test; german: test"):
        MultilingualLibriSpeech(language="polish").located()


def test_link_named_like_archive_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = mls_folder(tmp_path / "nas")
    folder = tmp_path / "corpora"
    folder.mkdir()
    place.rename(tmp_path / "nas" / "de")
    (folder / place.name).symlink_to(tmp_path / "nas" / "de")
    monkeypatch.setenv("EMTTA_CORPORA", str(folder))
    found = MultilingualLibriSpeech(language="german").located()
    assert summaries(found)
    named = parse_suite(SUITE.format(f'{{ name = "mls", language = "german", path = "{folder / place.name}" }}'))
    assert summaries(parse_suite(named.to_toml()).domains[0].corpus) == summaries(found)


def test_mls_has_exactly_its_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMTTA_CORPORA", str(tmp_path))
    for language, code in CODES.items():
        mls_folder(tmp_path, language)
        assert {one.language for one in MultilingualLibriSpeech(language=language).read_all()} == {code}
    with pytest.raises(UsageError, match=r"language is 'english'; it should be 'german', 'dutch'"):
        parse_suite(SUITE.format('{ name = "mls", language = "english" }'))


def test_mls_missing_text_fails_alone(tmp_path: Path) -> None:
    root = mls_folder(tmp_path)
    transcripts = root / "test/transcripts.txt"
    transcripts.write_text("".join(transcripts.read_text().splitlines(keepends=True)[:2]))
    *_, last = MultilingualLibriSpeech(language="german", path=str(root)).read_all()
    with pytest.raises(AudioError, match="has no transcript of 2422_1234_000002"):
        last.read()


def test_l2arctic_has_6_accents_of_4_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = [speaker for speakers in SPEAKERS.values() for speaker in speakers]
    l2arctic_folder(tmp_path, everyone)
    monkeypatch.setenv("EMTTA_CORPORA", str(tmp_path))
    assert len(SPEAKERS) == 6
    assert len(set(everyone)) == 24
    assert [one[0] for one in summaries(L2Arctic(accent="hindi"))] == [
        f"{speaker}-arctic_a000{index}" for speaker in ("ASI", "RRBI", "SVBI", "TNI") for index in (1, 2)
    ]
    assert summaries(L2Arctic(accent="arabic"))[1] == ("ABA-arctic_a0002", "The quick brown fox", "en", "ABA", 6_400)
    assert L2Arctic().count().utterances == 48
    settled = L2Arctic(accent="korean").located()
    monkeypatch.delenv("EMTTA_CORPORA")
    assert settled.content_digest() != L2Arctic(accent="hindi", path=settled.path).content_digest()


@pytest.mark.parametrize("top", ["l2arctic_release_v5.0", "l2arctic", "L2-ARCTIC"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_l2arctic_is_found_in_any_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: str, nested: bool
) -> None:
    root = l2arctic_folder(tmp_path, SPEAKERS["korean"], top=top, nested=nested)
    monkeypatch.setenv("EMTTA_CORPORA", str(tmp_path))
    settled = L2Arctic(accent="korean").located()
    assert settled.path == str(root)
    assert [one[3] for one in summaries(settled)] == [speaker for speaker in SPEAKERS["korean"] for _ in range(2)]


def test_l2arctic_missing_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMTTA_CORPORA", raising=False)
    with pytest.raises(CorpusError, match=r"L2-ARCTIC hindi is not in any folder \(.*request it with the form at http"):
        L2Arctic(accent="hindi").located()


def test_l2arctic_continues_without_speaker(tmp_path: Path) -> None:
    root = l2arctic_folder(tmp_path, ["ASI", "TNI"])
    counted = L2Arctic(accent="hindi", path=str(root)).count()
    assert counted.utterances == 4
    assert counted.notes == (
        f"speakers that are not in {root}: RRBI, SVBI, 2 of 4; the figures are for the others; "
        "extract the archives of these speakers to include them",
    )


def test_l2arctic_can_omit_exceptions(tmp_path: Path) -> None:
    root = l2arctic_folder(tmp_path, SPEAKERS["arabic"], sentences=1)
    for speaker, names in EXCEPTIONS.items():
        if speaker in SPEAKERS["arabic"]:
            for name in names:
                (root / speaker / "wav" / f"arctic_{name}.wav").write_bytes(sound(0.3, form="WAV", rate=44_100))
                (root / speaker / "transcript" / f"arctic_{name}.txt").write_text("One.")
    kept = L2Arctic(accent="arabic", path=str(root))
    left_out = kept.model_copy(update={"exceptions": "leave-out"})
    assert (kept.count().utterances, kept.count().notes) == (4 + 6, ())
    assert left_out.count().utterances == len(summaries(left_out)) == 4
    assert left_out.count().notes[0].startswith("recordings left out, as the paper's authors do: ABA arctic_a0158, ABA")
    assert left_out.identity() != kept.identity()
    assert sum(map(len, EXCEPTIONS.values())) == 20


def test_l2arctic_missing_wav_fails_alone(tmp_path: Path) -> None:
    root = l2arctic_folder(tmp_path, SPEAKERS["hindi"])
    whole = L2Arctic(accent="hindi", path=str(root)).content_digest()
    (root / "TNI/wav/arctic_a0002.wav").unlink()
    corpus = L2Arctic(accent="hindi", path=str(root))
    *others, last = corpus.read_all()
    assert (len(others), last.id, corpus.count()) == (7, "TNI-arctic_a0002", Count(8))
    with pytest.raises(AudioError, match=r"TNI/wav/arctic_a0002\.wav: cannot be read: No such file"):
        last.read()
    assert all(one.read().size for one in others)
    assert corpus.content_digest() != whole


def test_l2arctic_names_empty_speakers(tmp_path: Path) -> None:
    root = l2arctic_folder(tmp_path, SPEAKERS["hindi"])
    for speaker in ("RRBI", "TNI"):
        for path in (*root.glob(f"{speaker}/wav/*"), *root.glob(f"{speaker}/transcript/*")):
            path.unlink()
    with pytest.raises(CorpusError, match=r"has folders of RRBI, TNI with no recording .* archives of these speakers"):
        L2Arctic(accent="hindi", path=str(root)).count()


def test_l2arctic_missing_text_fails_alone(tmp_path: Path) -> None:
    root = l2arctic_folder(tmp_path, SPEAKERS["hindi"])
    (root / "TNI/transcript/arctic_a0002.txt").unlink()
    *others, last = L2Arctic(accent="hindi", path=str(root)).read_all()
    with pytest.raises(AudioError, match=r"the transcript .*arctic_a0002\.txt cannot be read: No such file"):
        last.read()
    assert all(one.read().size for one in others)


@pytest.mark.parametrize("card", [True, False], ids=["by its card", "by its folders"])
def test_common_voice_folder_matches_hub(tmp_path: Path, hub: Hub, card: bool) -> None:
    common_voice_hub(hub, card=card)
    common_voice_folder(tmp_path)
    here = summaries(CommonVoice(language="pt", path=str(tmp_path)))
    assert here == summaries(CommonVoice(language="pt"))
    assert here[1][:4] == ("common_voice_pt_1001", 'Ele disse: "sim" 1.', "pt", "abababababababab")
    with pytest.raises(CorpusError, match=r"dev\.tsv has no rows, so the split is empty"):
        CommonVoice(language="pt", split="validation", path=str(tmp_path)).count()
    common_voice_folder(tmp_path, release="cv-corpus-23.0-2025-09-05")
    with pytest.raises(CorpusError, match="there are several releases of Common Voice: "):
        CommonVoice(language="pt", path=str(tmp_path)).count()


@pytest.mark.parametrize("around", ["", "mcv-scripted-pt-v24.0/"])
def test_common_voice_is_found_in_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    home = common_voice_folder(tmp_path, release=f"{around}cv-corpus-24.0-2025-12-05")
    common_voice_folder(tmp_path, "de", release="mcv-scripted-de-v24.0/cv-corpus-24.0-2025-12-05")
    monkeypatch.setenv("EMTTA_CORPORA", str(tmp_path))
    assert CommonVoice(language="pt").located().path == str(home)


@pytest.mark.parametrize(
    ("row", "missing"), [("abc", "path, sentence"), ("abc\tclip.mp3\ts7", "sentence"), ("abc\t\ts7\tSim.\t", "path")]
)
def test_common_voice_cut_row_is_refused(tmp_path: Path, row: str, missing: str) -> None:
    table = common_voice_folder(tmp_path) / "test.tsv"
    whole = table.read_text().splitlines()
    table.write_text("\n".join([*whole[:3], row, *whole[3:]]))
    with pytest.raises(CorpusError, match=rf"test\.tsv, line 4: it has no {missing}, .*get the archive .* again"):
        CommonVoice(language="pt", path=str(tmp_path)).count()


def test_common_voice_needs_columns(tmp_path: Path) -> None:
    table = common_voice_folder(tmp_path) / "test.tsv"
    table.write_text(table.read_text().replace("\tsentence\t", "\ttext\t"))
    with pytest.raises(CorpusError, match=r"test\.tsv has no column sentence; get the archive"):
        CommonVoice(language="pt", path=str(tmp_path)).count()


@pytest.mark.parametrize("row", ["1503", "1503\t9.wav", "1503\t\tSieben."])
def test_fleurs_cut_line_is_refused(tmp_path: Path, row: str) -> None:
    table = fleurs_folder(tmp_path) / "data/de_de/test.tsv"
    whole = table.read_text().splitlines()
    table.write_text("\n".join([*whole[:2], "", row, *whole[2:]]))
    with pytest.raises(CorpusError, match=r"test\.tsv, line 4: '1503.* is not number, audio file, .*get it again"):
        Fleurs(language="de_de", path=str(tmp_path)).count()


def test_fleurs_folder_matches_hub(tmp_path: Path, hub: Hub) -> None:
    commit = fleurs_hub(hub)
    fleurs_folder(tmp_path)
    there = summaries(Fleurs(language="de_de"))
    assert sorted(there) == summaries(Fleurs(language="de_de", path=str(tmp_path)))
    assert there[0] == ("100000000000000002", "Sieben, kleine Boote 2.", "de", "", 8_000)
    assert Fleurs(language="de_de").located().revision == commit
    assert Fleurs(language="de_de").count().utterances == 3
    with pytest.raises(UsageError, match="no split 'test' of 'xx_xx' in Parquet; choose from: de_de: test"):
        Fleurs(language="xx_xx").located()
    (tmp_path / "fleurs/data/de_de/test.tsv").write_text("")
    with pytest.raises(CorpusError, match=r"test\.tsv has no lines, so the split is empty"):
        Fleurs(language="de_de", path=str(tmp_path)).count()


def test_fleurs_without_parquet_needs_clone(tmp_path: Path, hub: Hub) -> None:
    root = fleurs_folder(tmp_path)
    commit = hub.commit("google/fleurs", {"fleurs.py": b"", "data/de_de/test.tsv": b"", "data/de_de/dev.tsv": b""})
    with pytest.raises(UsageError, match=r"no split 'test' of 'de_de' in Parquet; it has no Parquet at all"):
        Fleurs(language="de_de", revision=commit).located()
    assert len(summaries(Fleurs(language="de_de", path=str(root), revision=commit))) == 3


def test_languages_use_whisper_codes(hub: Hub, tmp_path: Path) -> None:
    fleurs = {"cmn_hans_cn": "zh", "fil_ph": "tl", "jv_id": "jw", "nb_no": "no", "pt_br": "pt", "yue_hant_hk": "yue"}
    for language, code in fleurs.items():
        fleurs_folder(tmp_path, language)
        assert summaries(Fleurs(language=language, path=str(tmp_path)))[0][2] == code
        assert code in LANGUAGES
    for language, code in {"jv": "jw", "nb-NO": "no", "pt": "pt", "yue": "yue", "zh-CN": "zh", "zh-HK": "yue"}.items():
        common_voice_hub(hub, [(language, "test")])
        assert summaries(CommonVoice(language=language))[0][2] == code
        assert code in LANGUAGES


def test_tedlium_cuts_talks_like_hub(tmp_path: Path, hub: Hub) -> None:
    tedlium_hub(hub)
    tedlium_folder(tmp_path)
    first, second, late = TedLium(path=str(tmp_path)).read_all()
    assert [(one.id, one.text, one.read().size) for one in (first, second)] == [
        ("AlGore_2009-0.20-0.70", "it's late", 8_000),
        ("AlGore_2009-0.90-1.50", "come here", 9_600),
    ]
    with pytest.raises(AudioError, match=r"has no audio from 5 to 6 s; it is 2\.0 s long"):
        late.read()
    assert TedLium(path=str(tmp_path), max_seconds=0.55).count() == Count(1, left_out=2)
    (there,) = TedLium().read_all()
    assert (there.text, there.speaker, there.read().size) == ("it's late", "AlGore_2009", 8_000)
    with pytest.raises(UsageError, match="no split 'dev' of 'tedlium' in Parquet; choose from: tedlium: test"):
        TedLium(split="dev").located()


def test_tedlium_flags_unscorable(tmp_path: Path, hub: Hub) -> None:
    unscored = ("<unk> <unk>", "ignore_time_segment_in_scoring")
    tedlium_hub(hub, *unscored)
    root = tedlium_folder(tmp_path, "test", *unscored)
    *_, here = TedLium(path=str(root)).read_all()
    _, there, gap = TedLium().read_all()
    assert (TedLium().count().utterances, TedLium(path=str(root)).count().utterances) == (3, 4)
    for one in (here, there):
        assert one.text == ""
        with pytest.raises(AudioError, match=r"its transcript has no intelligible word \('<unk> <unk>'\)"):
            one.read()
    with pytest.raises(
        AudioError, match=r"AlGore_2009-2\..*: the corpus marks it as not an utterance \(ignore_time_segment"
    ):
        gap.read()


@pytest.mark.parametrize("branch", ["main", "refs/convert/parquet"])
def test_ami_separates_equal_ids(hub: Hub, branch: str) -> None:
    hub.commit("edinburghcstr/ami", {"ami.py": b"raise SystemExit"})
    ami_hub(hub, branch=branch)
    name = "AMI_EN2001a_H00_MEE068_0414915_0415078"
    assert summaries(Ami()) == [
        (name, "I'VE GOTTEN MM HARDLY ANY", "en", "MEE068", 6_400),
        (f"{name}-2", "I'VE GOTTEN MM HARDLY ANY", "en", "MEE068", 6_400),
    ]


def test_changed_talk_is_reread(tmp_path: Path) -> None:
    first = next(iter(TedLium(path=str(tedlium_folder(tmp_path))).read_all()))
    before = first.read()
    put(tmp_path / "TEDLIUM_release-3/legacy/test/sph", {"AlGore_2009.sph": sound(2.5, form="NIST", hertz=440)})
    assert not np.array_equal(first.read(), before)
    (tmp_path / "TEDLIUM_release-3/legacy/test/sph/AlGore_2009.sph").unlink()
    with pytest.raises(AudioError, match=r"AlGore_2009\.sph"):
        first.read()


def test_missing_value_is_empty(hub: Hub) -> None:
    audio = {"bytes": sound(0.3), "path": "one.flac"}
    lists: dict[str, tuple[Corpus, list[str]]] = {
        "edinburghcstr/ami": (Ami(), ["audio_id", "speaker_id", "text"]),
        "facebook/multilingual_librispeech": (
            MultilingualLibriSpeech(language="german"),
            ["id", "speaker_id", "transcript"],
        ),
        "fixie-ai/common_voice_17_0": (CommonVoice(language="pt"), ["path", "client_id", "sentence"]),
        "hf-audio/esb-datasets-test-only-sorted": (TedLium(), ["id", "speaker_id", "text"]),
        "openslr/librispeech_asr": (LibriSpeech(split="test-clean"), ["id", "speaker_id", "text"]),
    }
    for name, (corpus, (called, *others)) in lists.items():
        split = corpus.on_hub()
        rows = [
            {"audio": audio, called: "talk-1"} | dict.fromkeys(others),
            {"audio": audio, called: "talk-2"} | dict.fromkeys(others, "some"),
        ]
        hub.commit(name, {"rows.parquet": parquet(rows)}, configs={split.config: {split.split: "rows.parquet"}})
        nothing, something = corpus.read_all()
        assert (nothing.id, nothing.text, something.text) == ("talk-1", "", "some")
        assert nothing.speaker == ("talk" if isinstance(corpus, TedLium) else "")


@pytest.mark.parametrize(
    ("ids", "unique_ids"),
    [
        (["a", "a", "a-2", "a"], ["a", "a-2", "a-2-2", "a-3"]),
        (["a-2", "a", "a", "a"], ["a-2", "a", "a-3", "a-4"]),
        (["a", "b", "a", "a"], ["a", "b", "a-2", "a-3"]),
    ],
)
def test_ids_are_unique(hub: Hub, ids: list[str], unique_ids: list[str]) -> None:
    rows = [{"audio": {"bytes": sound(0.2), "path": "one.flac"}, "audio_id": one, "text": "some"} for one in ids]
    hub.commit("edinburghcstr/ami", {"a.parquet": parquet(rows)}, configs={"ihm": {"test": "a.parquet"}})
    assert [one.id for one in Ami().read_all()] == unique_ids


def test_every_field_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/suites.md").read_text(encoding="utf-8")
    for corpus in get_args(get_args(Corpus)[0]):
        assert f"`{corpus.model_fields['name'].default}`" in page
        assert not [name for name in corpus.model_fields if name != "name" and f"`{name}`" not in page]
