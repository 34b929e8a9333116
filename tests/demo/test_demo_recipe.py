"""The demo model's recipe: examples are reproducible, training can be stopped and resumed, the result is a Whisper."""

import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from transformers import WhisperForConditionalGeneration

from emtta_core.demo.recipe import Examples, Recipe, phoneme_inventory
from emtta_core.demo.train import STATE_FILE, Student, train
from emtta_core.errors import ModelError, UsageError
from emtta_core.model.model_files import folder_of

TINY = Recipe(
    utterances=24,
    batch=4,
    warmup=2,
    text_tokens=200,
    inventory_sentences=2,
    width=16,
    heads=2,
    encoder_layers=1,
    decoder_layers=1,
)


@pytest.fixture(scope="module")
def inventory() -> tuple[str, ...]:
    return phoneme_inventory(sentences=2)


def test_example_depends_only_on_index(inventory: tuple[str, ...]) -> None:
    first = Examples(inventory, 4, 125, seed=0)
    second = Examples(inventory, 4, 125, seed=0)
    second[3]
    one, other = first[7], second[7]
    np.testing.assert_array_equal(one.waveform, other.waveform)
    assert one.text == other.text
    assert first[8].text != one.text


def test_frames_are_phonemes_then_silence(inventory: tuple[str, ...]) -> None:
    example = Examples(inventory, 4, 125, seed=0)[0]
    assert example.phonemes.shape == (125,)
    spoken = int(len(example.waveform) / 64_000 * 125)
    assert (example.phonemes[spoken + 1 :] == inventory.index("")).all()
    assert len(set(example.phonemes[:spoken].tolist())) > 5


@pytest.mark.slow
def test_training_resumes_to_same_weights(tmp_path: Path, inventory: tuple[str, ...]) -> None:
    def student() -> Student:
        torch.manual_seed(0)
        return Student(TINY, inventory)

    examples = Examples(inventory, TINY.window_seconds, TINY.frames, TINY.seed)
    batches = [[examples[4 * step + place] for place in range(4)] for step in range(4)]
    straight = student()
    for batch in batches:
        straight.update(batch)
    stopped = student()
    for batch in batches[:2]:
        stopped.update(batch)
    stopped.save_state(tmp_path / STATE_FILE, 2)
    resumed = student()
    assert resumed.restore(tmp_path / STATE_FILE) == 2
    for batch in batches[2:]:
        resumed.update(batch)
    for one, other in zip(straight.parameters, resumed.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.slow
def test_training_makes_loadable_whisper(tmp_path: Path) -> None:
    messages: list[str] = []
    threads = torch.get_num_threads()
    train(tmp_path / "model", TINY, echo=messages.append)
    assert torch.get_num_threads() == threads
    assert np.float32(1e-40) * np.float32(0.5) > 0, "small numbers are what they were before"
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert model.config.max_source_positions == 125
    assert "0 of 6 updates are done" in messages[0]
    assert not (tmp_path / "model" / STATE_FILE).exists()
    assert Recipe.load(tmp_path / "model") == TINY


@pytest.mark.slow
def test_suggested_command_trains_demo_model(emtta: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny recipe instead of the one that takes hours."""
    monkeypatch.setattr("emtta_core.model.model_files.resources.files", lambda _: tmp_path / "an installation")
    with pytest.raises(ModelError) as missing:
        folder_of("demo")
    (command,) = re.findall("train it again with emtta (.*)", str(missing.value))
    monkeypatch.setattr("emtta_core.demo.train.train", partial(train, recipe=TINY))
    done = emtta(*shlex.split(command))
    assert done.code == 0, done.err
    assert Recipe.load(folder_of("demo")) == TINY


def test_finished_model_is_kept(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(b"a state")
    TINY.save(tmp_path)
    with pytest.raises(UsageError, match="another recipe"):
        train(tmp_path, replace(TINY, width=32))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(UsageError, match="finished model"):
        train(tmp_path, TINY)


def test_folder_without_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"recipe\.json"):
        Recipe.load(tmp_path)
    (tmp_path / "recipe.json").write_text('{"depth": 3}')
    with pytest.raises(ModelError, match="depth"):
        Recipe.load(tmp_path)
