"""What effects share: a level, a length, another sample rate."""

import numpy as np
import soxr

from emtta_core.audio.corrupted import Corrupted
from emtta_core.audio.level import scale_back, scale_to_dbfs
from emtta_core.audio.mix import LEVEL_DBFS
from emtta_core.audio.spectrum import Samples
from emtta_core.audio.waveform import SAMPLE_RATE

TELEPHONE_RATE = 8000
"""Hz, at which telephones and their codecs work."""


def levelled(samples: Samples, snr_db: float | None = None) -> Corrupted:
    """Return samples at -25 dB FS RMS, scaled back where they pass full scale."""
    within = scale_back(scale_to_dbfs(samples, LEVEL_DBFS))
    return Corrupted(within.waveform, within.gain, snr_db)


def fitted(samples: Samples, length: int) -> Samples:
    """Return samples cut, or filled up with silence, to `length`: codecs work in whole frames."""
    return np.pad(samples[:length], (0, max(0, length - samples.size)))


def to_telephone(samples: Samples) -> Samples:
    """Return samples at 16 kHz as samples at 8 kHz, shape `(ceil(N / 2),)`, within full scale."""
    half = soxr.resample(samples, SAMPLE_RATE, TELEPHONE_RATE)
    return np.clip(fitted(half.astype(np.float64), -(-samples.size // 2)), -1, 1)


def from_telephone(samples: Samples, length: int) -> Samples:
    """Return samples at 8 kHz as `length` samples at 16 kHz."""
    whole = soxr.resample(samples, TELEPHONE_RATE, SAMPLE_RATE)
    return fitted(whole.astype(np.float64), length)
