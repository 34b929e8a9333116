"""Noise from files: the recordings of MS-SNSD that the paper uses, or your own."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from emtta_core.audio.corrupted import Corrupted, Voices
from emtta_core.audio.files import caching
from emtta_core.audio.mix import LEVEL_DBFS, MAX_SNR_DB, SnrConvention, SnrOver, mix, true_snr_db
from emtta_core.audio.noise import NoiseKind, synthesise
from emtta_core.audio.waveform import SAMPLE_RATE, checked, refuse_silence
from emtta_core.errors import AudioError, UsageError
from emtta_core.identity import IDENTITY, RUNTIME, Record, digest
from emtta_core.input_files import CORPORA, candidates, searched

NOISE_FILE_VERSION = 1
"""Incremented whenever the same settings and the same file would give different samples."""

MS_SNSD: Mapping[str, str] = {
    "air-conditioner": "AirConditioner_6.wav",
    "airport-announcements": "AirportAnnouncements_2.wav",
    "babble": "Babble_4.wav",
    "copy-machine": "CopyMachine_2.wav",
    "munching": "Munching_3.wav",
    "neighbour": "Neighbor_6.wav",
    "shutting-door": "ShuttingDoor_6.wav",
    "typing": "Typing_2.wav",
    "vacuum-cleaner": "VacuumCleaner_1.wav",
}
"""The recordings of the paper's noise domains, by kind."""

FOLDER = "MS-SNSD"
"""The folder name of a clone."""

FOLDERS = ("", "noise_test", "noise_train")
"""The subfolders searched for a recording: MS-SNSD has two, with some names in both. An incomplete listing of it has
four of the paper's nine in `noise_test` (such as `Babble_4`), and none in `noise_train`."""

_recording = caching(files=32)
"""Reads a recording, shape `(N,)`, which is used for every utterance."""

Offset = Literal["start", "random"]
"""Where a recording begins: at its first sample, as with the paper's authors, or at random for each utterance."""


class NoiseFile(Record):
    """A recording of noise at a signal-to-noise ratio, repeated without a gap if it is shorter than the speech."""

    name: Annotated[Literal["noise-file"], IDENTITY] = "noise-file"
    # The folder of the recordings, such as a clone of MS-SNSD; only their content is part of the identity. By default,
    # the folders listed in `EMTTA_CORPORA`, and `MS-SNSD` in them, are searched.
    path: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # One of the paper's ten; `gaussian` is drawn for each utterance and needs no file.
    kind: Annotated[NoiseKind | None, IDENTITY] = None
    # Instead of `kind`, the name of your own recording in the folder.
    file: Annotated[str | None, IDENTITY, Field(min_length=1)] = None
    offset: Annotated[Offset, IDENTITY] = "start"  # where the recording begins
    # The ratio of the RMS levels of speech and noise, in dB.
    snr_db: Annotated[float, IDENTITY, Field(ge=-MAX_SNR_DB, le=MAX_SNR_DB, allow_inf_nan=False)]
    snr_over: Annotated[SnrOver, IDENTITY] = "utterance"  # what the levels are measured over
    snr_convention: Annotated[SnrConvention, IDENTITY] = "exact"  # how the ratio is interpreted
    # The level in dB FS RMS that speech and noise are scaled to before the ratio is set.
    level_dbfs: Annotated[float, IDENTITY, Field(ge=-60, le=0, allow_inf_nan=False)] = LEVEL_DBFS
    seed: Annotated[int, IDENTITY] = 0  # another seed gives different offsets and Gaussian noise

    @model_validator(mode="after")
    def _one_recording(self) -> "NoiseFile":
        # Refuse both a kind and a file, neither of them, or a file outside the folder.
        if (self.kind is None) == (self.file is None):
            raise ValueError(
                f"kind is {self.kind!r} and file is {self.file!r}; set one of them: "
                f"a kind (gaussian, {', '.join(MS_SNSD)}), or the name of a file in {searched(self.path)}"
            )
        if self.file is not None and (Path(self.file).is_absolute() or ".." in Path(self.file).parts):
            raise ValueError(f"file is {self.file!r}; it must be in the folder of the recordings")
        return self

    def determinants(self, _voices: Callable[[], str]) -> dict[str, Any]:
        """Everything that determines the effect on an utterance, with a digest of the recording's content.

        Raises:
            UsageError: the recording is missing (says where to get it), or cannot be used.
        """
        settings = {"version": NOISE_FILE_VERSION, "settings": self.identity()}
        if self.kind == "gaussian":
            return settings
        path = self.recording()
        try:
            noise = checked(_recording(path), str(path))
            refuse_silence(noise, str(path))
        except AudioError as error:
            raise UsageError(f"the noise cannot be used: {error}; replace the file") from error
        return settings | {"content": hashlib.sha256(noise.tobytes()).hexdigest()}

    def located(self) -> Self:
        """A copy whose path is the folder in which the recording was found, if it was."""
        if self.path is not None or self.kind == "gaussian":
            return self
        try:
            return self.model_copy(update={"path": str(self._folder().resolve())})
        except UsageError:
            return self

    def label(self) -> str:
        """The label in rows of prepared audio."""
        offset = "" if self.offset == "start" or self.kind == "gaussian" else " at a random offset"
        level = "" if self.level_dbfs == LEVEL_DBFS else f" at {self.level_dbfs:g} dB FS"
        ratio = ratio_label(self.snr_db, self.snr_over, self.snr_convention)
        return f"{self.name}/{self.kind or self.file}{offset}{level}{ratio}"

    def apply(self, waveform: ArrayLike, utterance_id: str, _voices: Voices) -> Corrupted:
        """Add the recording to `waveform`.

        Args:
            waveform: clean speech, shape `(N,)`.
            utterance_id: the same id gives the same offset, at any ratio.
            _voices: not used.

        Raises:
            AudioError: when the speech is not a waveform, is empty or silent, or contains NaN or infinity; or when the
                piece of the recording used is silent.
            UsageError: the recording is missing.
        """
        speech = checked(waveform, "the speech")
        rng = np.random.default_rng(int(digest([self.seed, utterance_id, self.kind or self.file], 64), 16))
        offset = 0
        if self.kind == "gaussian":
            noise = synthesise(self.kind, speech.size / SAMPLE_RATE, rng)
        else:
            path = self.recording()
            noise = _recording(path)
            offset = int(rng.integers(noise.size)) if self.offset == "random" else 0
        ratio = true_snr_db(self.snr_db, self.snr_convention)
        mixture = mix(speech, noise, ratio, offset=offset, over=self.snr_over, level_dbfs=self.level_dbfs)
        return Corrupted(mixture.waveform, mixture.gain, ratio)

    def recording(self) -> Path:
        """The file of the recording, if the kind is not `gaussian`; UsageError if it is missing."""
        return self._folder() / self._file_name()

    def _file_name(self) -> str:
        # Relative to the folder that contains it; may include subfolders.
        return self.file or MS_SNSD[str(self.kind)]

    def _folder(self) -> Path:
        # The folder in which the recording is found by name; UsageError if it is in none.
        name = self._file_name()
        for folder in candidates(self.path, (FOLDER,)):
            for below in FOLDERS:
                if (folder / below / name).exists():
                    return folder / below
        what = f"the noise {name!r}"
        refusal = f"{what} is not in {searched(self.path)}"
        if self.file:
            raise UsageError(f"{refusal}; put it there, or name another file", subject=what)
        raise UsageError(
            f"{refusal}, nor in the folders {FOLDER}, noise_test and noise_train there; get the recordings with "
            f"`git clone https://github.com/microsoft/MS-SNSD`, and set path to the folder of the clone, or "
            f'{CORPORA} to its parent; or use {{ name = "noise" }} of the same kind, which is synthesised and '
            "needs no file",
            subject=what,
        )


def ratio_label(snr_db: float, over: SnrOver, convention: SnrConvention) -> str:
    """The ratio's part of a label; empty if it is exact and over the utterance."""
    parts = [
        *(["SNR over speech alone"] if over == "speech" else []),
        *(
            [f"SNR convention msnsd-old: {snr_db:g} dB by name, {true_snr_db(snr_db, convention):g} dB in truth"]
            if convention == "msnsd-old"
            else []
        ),
    ]
    return f" ({'; '.join(parts)})" if parts else ""
