"""The demo model's card: word error rates measured on its training voices and on unseen voices."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from emtta_core.adaptation import Adapter
from emtta_core.atomic_write import write_bytes
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.demo.recipe import LANGUAGES, Recipe, trained_voices
from emtta_core.errors import ModelError
from emtta_core.model import Model, load_model
from emtta_core.scoring import word_errors

CARD_FILE = "README.md"
SHIPPED = Path(str(files("emtta_core.model"))) / "demo"
"""The folder of the model that comes with emtta."""

_NEW_VOICES = (
    ("en", "en-gb-scotland"),
    ("en", "en-029"),
    ("en", "en-gb-x-gbcwmd"),
    ("en", "en-gb-x-gbclan"),
    ("en", "en-us-nyc"),
    ("en", "en-gb-x-rp"),
    ("pt", "pt-br"),
    ("es", "es-419"),
    ("fr", "fr-be"),
    ("fr", "fr-ch"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Word errors of the unadapted model on one kind of clean synthetic speech."""

    language: str  # ISO 639-1 code
    voices: str  # `trained`, or the name of a held-out voice
    utterances: int  # number of test utterances that fit the model's window; the others are left out
    words: int  # words of their references
    errors: int  # total substitutions, deletions and insertions

    @property
    def wer(self) -> float:
        """Word error rate in percent: all errors over all words."""
        return 100 * self.errors / self.words


def measure(folder: Path, utterances: int = 150, *, new_voices: bool = True) -> Iterator[Measured]:
    """Yield the word errors of the model in `folder` for each language's training voices, then for unseen voices.

    The sentences are from the test split, at 175 words per minute, without noise.

    Raises:
        ModelError: when there is no model in the folder.
    """
    model = load_model(str(folder))
    for language in LANGUAGES:
        yield _measure(model, language, trained_voices(language), "trained", utterances)
    for language, voice in _NEW_VOICES if new_voices else ():
        yield _measure(model, language, (voice,), voice, utterances)


def _measure(model: Model, language: str, voices: tuple[str, ...], name: str, count: int) -> Measured:
    spoken = list(Synthetic(language=language, voices=voices, utterances=count, seed=1).read_all())
    results = Adapter(model, method="source").transcribe([each.read() for each in spoken], language=language)
    scores = [
        word_errors(utterance.text, result.hypothesis, language)
        for utterance, result in zip(spoken, results, strict=True)
        if result.error is None
    ]
    return Measured(
        language, name, len(scores), sum(each.words for each in scores), sum(each.errors for each in scores)
    )


def read_card(folder: Path) -> str:
    """Read the text of a model's card.

    Raises:
        ModelError: when the folder has none.
    """
    file = folder / CARD_FILE
    if not file.is_file():
        Recipe.load(folder)  # refuses other models, for which no card can be written
        raise ModelError(
            f"{folder} has no {CARD_FILE}; `emtta demo card --model {shlex.quote(str(folder))} --measure` writes it"
        )
    return file.read_text(encoding="utf-8")


def write_card(folder: Path, rows: list[Measured]) -> str:
    """Write the card to the folder of a model trained by `emtta demo train`, and return its text."""
    recipe = Recipe.load(folder)
    table = "\n".join(
        f"| {row.language} | {row.voices} | {row.utterances} | {row.words} | {row.wer:.1f} |" for row in rows
    )
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    text = _CARD.format(table=table, recipe=recipe, megabytes=megabytes)
    write_bytes(folder / CARD_FILE, text.encode())
    return text


_CARD = """\
# The demo model of emtta

A real `WhisperForConditionalGeneration` of {megabytes:.1f} MB that transcribes **synthetic** speech: sentences from
small grammars in eight languages, spoken by espeak-ng. It lets every part of emtta run on any machine without a
download. It shows how adaptation behaves; it cannot transcribe human speech.

| | |
|---|---|
| layers | {recipe.encoder_layers} encoder, {recipe.decoder_layers} decoder |
| width | {recipe.width}, {recipe.heads} heads |
| window | {recipe.window_seconds} s: {recipe.frames} encoder frames |
| spectrogram | {recipe.mels} mel bands, one frame per {recipe.hop_length} samples |
| text tokens | {recipe.text_tokens}, byte-pair encoding |
| training | {recipe.utterances:,} utterances, one epoch; AdamW, peak learning rate {recipe.learning_rate:g}, cosine |
| trained with | `emtta demo train` (emtta_core/demo) |
| license | Apache-2.0 |

## Word error rates

Measured on clean test sentences that were not used in training, at 175 words per minute, with
`emtta demo card --measure`. `trained` stands for the training voices in emtta_core/demo/recipe.py.

| language | voices | utterances | words | WER % |
|---|---|---|---|---|
{table}
"""
