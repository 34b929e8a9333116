"""The numbers of the demo model's training, and the espeak-ng voices that it hears; every other voice is held out."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from emtta_core.atomic_write import write_bytes
from emtta_core.errors import ModelError

LANGUAGES = ("en", "de", "nl", "fr", "es", "it", "pt", "pl")
"""ISO 639-1 codes of the languages that the demo model knows."""

ENGLISH_SHARE = 0.3
"""Share of the training utterances that is English; the other languages share the rest equally."""

_BASE = {"en": "en-us"}
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")


def trained_voices(language: str) -> tuple[str, ...]:
    """The voices of a language in training: the plain voice and its common variants."""
    base = _BASE.get(language, language)
    return (base, *(f"{base}+{variant}" for variant in _VARIANTS))


RECIPE_FILE = "recipe.json"
"""Where a trained model's recipe lies, in its folder."""


@dataclass(frozen=True)
class Recipe:
    """Every number of the training. A batch is `batch` utterances; `utterances` are seen in all, none twice."""

    utterances: int = 130_000
    batch: int = 32
    learning_rate: float = 2e-3
    warmup: int = 300
    weight_decay: float = 0.01
    phoneme_weight: float = 1.0
    seed: int = 0
    text_tokens: int = 1_000
    inventory_sentences: int = 200
    width: int = 160
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 2
    window_seconds: int = 4
    hop_length: int = 256
    mels: int = 80
    max_tokens: int = 64

    @property
    def frames(self) -> int:
        """Encoder frames in a window; the second convolution halves the spectrogram's."""
        return self.window_seconds * 16_000 // self.hop_length // 2

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.utterances // self.batch

    def save(self, folder: Path) -> None:
        """Write the recipe next to the model that it makes."""
        write_bytes(folder / RECIPE_FILE, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> "Recipe":
        """Read the recipe next to a model.

        Raises:
            ModelError: when there is none, or it is of another version of emtta.
        """
        file = folder / RECIPE_FILE
        if not file.is_file():
            raise ModelError(f"{folder} has no {RECIPE_FILE}; give a folder that `emtta demo train` made")
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{file} is no recipe of this version of emtta ({error}); train into a new folder"
            ) from error
