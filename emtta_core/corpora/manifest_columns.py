"""The column names of a manifest in each format: emtta's own, NeMo's, or Hugging Face's.

Sources: NeMo's manifests (https://docs.nvidia.com/nemo-framework/user-guide/latest/nemotoolkit/asr/datasets.html), and
the audio folders of the library `datasets` (https://huggingface.co/docs/datasets/audio_dataset#audiofolder).
"""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from emtta_core.errors import UsageError

_LANGUAGES = (
    "iso iso639 iso_639 iso_639_1 lang lang_code lang_id langcode langid language_code language_id language_name "
    "languages lid lng locale source_lang source_language spoken_language src_lang"
)
LANGUAGE_ALIASES = frozenset(_LANGUAGES.split())
"""Names of a language column in other programs."""

SECONDS = ("duration", "offset", "start", "end")
"""The columns in seconds; the last three select the part of a file that an utterance is."""

_OPTIONAL = ("id", "language", "speaker", *SECONDS)

_OTHER_NAMES = {
    "path": "audio audio_file audio_path clip file file_path filename filepath recording sound uri url wav wav_path",
    "text": "label normalized_text raw_text raw_transcription ref reference sentence target trans transcript "
    "transcription transcripts txt utterance words",
    "id": "audio_id clip_id file_id key sample_id segment_id uid utt utt_id uttid utterance_id",
    "speaker": "client_id reader reader_id speaker_id speaker_name speakerid spk spk_id spkid talker user_id",
    "duration": "audio_duration dur duration_s duration_sec duration_seconds",
}
_ALIASES: Mapping[str, Collection[str]] = {name: frozenset(others.split()) for name, others in _OTHER_NAMES.items()} | {
    "language": LANGUAGE_ALIASES
}
"""Names of the columns in other programs; one of these instead of the column is refused with a suggestion."""

_SEGMENT = re.compile(
    r"((audio|clip|seg|segment|speech|utt|utterance|time|t)_?)?(offset|onset|start|begin|end|stop|xmin|xmax)s?"
    r"(_?(at|time|offset|pos|position|s|sec|secs|second|seconds|ms|frame|sample))?|t[01]"
)
_CHANNEL = re.compile(r"(audio_?)?(channel|ch)(_?(id|index|no|number|num))?")


@dataclass(frozen=True, slots=True)
class Form:
    """A format of manifests."""

    name: str  # its name in messages
    path: str  # the column of the audio files, which identifies it
    texts: tuple[str, ...] = ("text",)  # the possible names of the transcript column, the most likely first
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # other columns whose names differ from ours
    own_folder: bool = True  # whether its paths are relative to the manifest's folder, not to the corpus's

    @property
    def known(self) -> tuple[str, ...]:
        """All names that its columns may have."""
        return (self.path, *self.texts, *_OPTIONAL, *(name for names in self.others.values() for name in names))

    def columns(self, where: str, names: Sequence[str], *, needs_text: bool = True) -> dict[str, str]:
        """The column name of each field that a manifest with these columns has.

        Raises:
            UsageError: a column may be a misnamed one, or is not supported; or there are no transcripts.
        """
        found = {"path": self.path}
        texts = [name for name in self.texts if name in names]
        if len(texts) > 1 and self.texts[0] not in texts:
            raise UsageError(
                f"{where}: the transcript may be in the column {' or '.join(map(repr, texts))}; rename the right one "
                f"to {self.texts[0]!r}"
            )
        found |= {"text": texts[0]} if texts else {}
        for key in _OPTIONAL:
            column = next((name for name in self.others.get(key, (key,)) if name in names), None)
            found |= {} if column is None else {key: column}
        self._refuse_misnamed(where, names, found)
        if "text" not in found and needs_text:
            raise UsageError(
                f"{where}: there is no column {' or '.join(map(repr, self.texts))}, only "
                f"{', '.join(map(repr, names))}; each row needs {self.path} and {self.texts[0]}, and may have "
                f"{', '.join(_OPTIONAL)} and more, which are kept as metadata"
            )
        return found

    def _refuse_misnamed(self, where: str, names: Sequence[str], found: Mapping[str, str]) -> None:
        # Refuse a column that may be a misnamed missing one; `speaker_id` beside `speaker` is not a mistake.
        for name in names:
            if name in found.values():
                continue
            intended = _intended_field(name)
            if intended is not None and intended not in found:
                raise UsageError(f"{where}: there is a column {name!r}; should it be {intended!r}? Rename or remove it")
            plain = _plain(name)
            if _SEGMENT.fullmatch(plain) and not {"offset", "start"} & {*found}:
                raise UsageError(
                    f"{where}: there is a column {name!r}; a segment of a file is given by offset and duration, or by "
                    "start and end, in seconds: rename or remove it"
                )
            if _CHANNEL.fullmatch(plain):
                raise UsageError(
                    f"{where}: there is a column {name!r}, but the channels of a file are averaged: write each "
                    "to a separate file, or remove the column"
                )


EMTTA = Form("emtta", "path", own_folder=False)
NEMO = Form("NeMo", "audio_filepath", others={"language": ("lang", "source_lang", "language")})
HUGGING_FACE = Form(
    "Hugging Face",
    "file_name",
    ("text", "transcription", "transcript", "sentence"),
    {"speaker": ("speaker", "speaker_id")},
)
FORMS = (EMTTA, NEMO, HUGGING_FACE)


def form_of(where: str, names: Sequence[str]) -> Form:
    """The format of a manifest with these columns.

    Raises:
        UsageError: they match no format, or several, or one occurs twice; names them.
    """
    duplicates = [name for name, count in Counter(names).items() if name.strip() and count > 1]
    if duplicates:
        raise UsageError(f"{where}: the column {duplicates[0]!r} occurs more than once; give each a unique name")
    found = [form for form in FORMS if form.path in names]
    if len(found) == 1:
        return found[0]
    seen = ", ".join(map(repr, names)) or "none"
    if found:
        several = " and ".join(f"{form.path!r} ({form.name})" for form in found)
        raise UsageError(
            f"{where}: the columns {several} name audio files in {len(found)} formats; keep one of them. The columns "
            f"are {seen}"
        )
    intended = next((name for name in names if _intended_field(name) == "path" or _plain(name) == "path"), None)
    if intended is not None:
        raise UsageError(f"{where}: there is a column {intended!r}; should it be 'path'? Rename or remove it")
    raise UsageError(
        f"{where}: there is no column 'path', only {seen}; each row needs path and text, or the columns of "
        "NeMo (audio_filepath) or Hugging Face (file_name)"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _intended_field(name: str) -> str | None:
    # The field that a column's name is an alias or a misspelling of; None if none.
    plain = _plain(name)
    for key, others in _ALIASES.items():
        if plain in others or (plain == key and name != key):
            return key
    return next(iter(difflib.get_close_matches(plain, _ALIASES, n=1, cutoff=0.8)), None)
