"""Git LFS and git-annex pointers are refused by name wherever a file is read, and `doctor` opens the files."""

import shutil
from pathlib import Path

import pytest
from conftest import CLEAN, Command, Speech, SuiteFile, tone

from emtta_core.audio.files import read_audio
from emtta_core.corpora.recording import text_of
from emtta_core.corpora.saved_dataset import SavedDataset
from emtta_core.errors import AudioError, CorpusError, ModelError, UsageError
from emtta_core.input_files import pointer_in
from emtta_core.model.model_files import check_complete
from emtta_core.pipeline.inventory import inventory
from emtta_core.suite import load_suite

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 9493424\n"
ANNEX = b"/annex/objects/SHA256E-s9493424--4d7a214614ab.safetensors\n"

pointers = pytest.mark.parametrize(("pointer", "system"), [(LFS, "Git LFS"), (ANNEX, "git-annex")])


@pointers
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "preprocessor_config.json"]
)
def test_model_file_pointer_is_named(pointer: bytes, system: str, name: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    check_complete(folder)
    (folder / name).write_bytes(pointer)
    with pytest.raises(ModelError, match=rf"{name} cannot be read: it is a {system} pointer .*; get the file itself"):
        check_complete(folder)


@pytest.mark.parametrize(("name", "keep"), [("model.safetensors", 5), ("model.safetensors", -7), ("config.json", 9)])
def test_truncated_model_file_is_named(name: str, keep: int, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(ModelError, match=rf"{name} is cut off or damaged \(.*\); get it again"):
        check_complete(folder)


@pointers
def test_other_pointers_are_named(pointer: bytes, system: str, tmp_path: Path, suite_file: SuiteFile) -> None:
    for name in ("u.wav", "u.txt", "suite.toml", "corpus/manifest.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pointer)
    with pytest.raises(AudioError, match=f"u.wav: it is a {system} pointer"):
        read_audio(tmp_path / "u.wav")
    with pytest.raises(AudioError, match=f"it is a {system} pointer"):
        read_audio(pointer)
    with pytest.raises(CorpusError, match=f"u.txt cannot be read: it is a {system} pointer"):
        text_of(tmp_path / "u.txt")
    with pytest.raises(UsageError, match=f"cannot be read: it is a {system} pointer"):
        load_suite(str(tmp_path / "suite.toml"))
    suite = suite_file(CLEAN.replace('"speech"', '"corpus"'))
    (need, _) = inventory(load_suite(str(suite)), None)
    assert need.availability.state == "missing"
    assert f"it is a {system} pointer" in str(need.availability.error)


@pointers
def test_saved_data_set_pointer_is_named(pointer: bytes, system: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "data-00000-of-00001.arrow").write_bytes(pointer)
    found = SavedDataset(path=str(tmp_path), language="en").availability()
    assert found.state == "missing"
    assert f"arrow cannot be read: it is a {system} pointer" in str(found.error)


def test_repository_shows_fetch_command(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    message = str(pointer_in(LFS, tmp_path / "some folder" / "model.safetensors"))
    assert message.endswith(f"fetch it with: git -C '{tmp_path}/some folder' lfs pull")


def test_text_about_pointers_is_not_one() -> None:
    assert pointer_in(LFS + b" " * 1024) is None
    assert pointer_in(b"the " + LFS) is None


@pytest.mark.parametrize("content", [LFS, b"no sound", b""])
def test_unreadable_corpus_is_missing(content: bytes, suite_file: SuiteFile, tmp_path: Path) -> None:
    speech = Speech(tmp_path / "speech")
    for name in ("a", "b"):
        speech.add(name, content, "seven small boats")
    (need, _) = inventory(load_suite(str(suite_file(CLEAN))), None)
    assert need.availability.state == "missing"
    assert str(need.availability.error).startswith("none of the first recordings of folder speech can be read: ")
    speech.add("c", tone(0.5), "nobody knows")
    (need, model) = inventory(load_suite(str(suite_file(CLEAN))), None)
    assert (need.availability.state, model.availability.state) == ("here", "here")


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(LFS), lambda path: path.write_bytes(b"12345678{")])
def test_doctor_and_prepare_open_weights(
    damage: object, suite_file: SuiteFile, speech: Speech, tiny_model: Path, tmp_path: Path, emtta: Command
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = suite_file()
    path.write_text(path.read_text().replace(str(tiny_model), str(folder)))
    store = tmp_path / "store"
    assert emtta("prepare", path, "--store", store, "--dry-run").code == 0
    assert callable(damage)
    damage(folder / "model.safetensors")
    for words, code in ((("prepare", path, "--dry-run"), 3), (("doctor", path), 1), (("run", path), 1)):
        found = emtta(*words, "--store", store)
        assert found.code == code
        assert "model.safetensors" in found.err
