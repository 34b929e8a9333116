"""A model is loaded from the demo, a folder or a hub id; what cannot be loaded is refused with what to do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from whisper_factory import make_checkpoint

from emtta_core.errors import ModelError, UsageError
from emtta_core.model import load_model
from emtta_core.model.precision import PRECISIONS
from emtta_core.suite import ModelChoice


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_a_folder_says_what_it_holds(checkpoint: Path) -> None:
    model = load_model(str(checkpoint), device="cpu")
    assert model.name == str(checkpoint)
    assert model.device == torch.device("cpu")
    assert model.sample_rate == 16_000
    assert model.max_seconds == 4.0
    assert model.languages == ("de", "en", "fr")
    from transformers import WhisperForConditionalGeneration

    theirs = WhisperForConditionalGeneration.from_pretrained(checkpoint)
    # Keys have no bias in Whisper; ours are stacked with the others' and are zeros.
    blocks = theirs.config.encoder_layers + 2 * theirs.config.decoder_layers
    assert model.size == theirs.num_parameters() + blocks * theirs.config.d_model


def test_the_digest_is_of_the_content(checkpoint: Path, copy: Path) -> None:
    digest = load_model(checkpoint, device="cpu").digest
    assert load_model(copy, device="cpu").digest == digest
    assert load_model(copy, device="cpu", precision="float64").digest == digest
    path = copy / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"suppress_tokens": [3]}))
    assert load_model(copy, device="cpu").digest != digest


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_missing_file_is_named(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(ModelError) as refusal:
        load_model(copy, device="cpu")
    assert missing in str(refusal.value)
    assert str(copy) in str(refusal.value)


def test_a_broken_weights_file_is_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot read model"):
        load_model(copy, device="cpu")


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(copy, device="cpu")


def test_another_kind_of_model_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"'bert'.*'whisper'"):
        load_model(copy, device="cpu")


def test_parts_that_do_not_fit_are_refused(copy: Path) -> None:
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chunk_length": 5, "n_samples": 80_000}))
    with pytest.raises(ModelError, match=r"312 frames.*250"):
        load_model(copy, device="cpu")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_an_unknown_folder_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="no folder"):
        load_model(name, device="cpu")


def test_a_file_is_not_a_folder(copy: Path) -> None:
    with pytest.raises(ModelError, match="is a file; give the folder"):
        load_model(copy / "config.json", device="cpu")


def test_a_hub_that_cannot_be_reached_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "from emtta_core import load_model\n"
        "from emtta_core.errors import EmttaError\n"
        "try:\n"
        "    load_model('nobody/no-such-whisper', device='cpu')\n"
        "except EmttaError as error:\n"
        "    print(error)\n"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert "'nobody/no-such-whisper'" in made.stdout
    assert "give its folder" in made.stdout


def test_devices_and_precisions_that_there_are_not_are_refused(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="'toaster'"):
        load_model(checkpoint, device="toaster")
    with pytest.raises(UsageError, match=r"'int3'.*float32"):
        load_model(checkpoint, precision="int3")


def test_a_suite_offers_the_precisions_that_can_be_loaded() -> None:
    assert get_args(ModelChoice.model_fields["precision"].annotation) == tuple(PRECISIONS)


def test_the_engine_imports_no_more_than_it_needs() -> None:
    script = (
        "import sys\n"
        "import emtta_core.adaptation, emtta_core.model\n"
        "print([name for name in ('prefect', 'pydantic', 'duckdb', 'pyarrow', 'soundfile', 'datasets') "
        "if name in sys.modules])\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert made.stdout.strip() == "[]"


def test_listing_the_methods_needs_no_torch() -> None:
    script = "import sys, emtta_core.adaptation; print(list(emtta_core.adaptation.METHODS)[0], 'torch' in sys.modules)"
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert made.stdout.split() == ["source", "False"]
