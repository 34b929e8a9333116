"""Log-mel features, equal to those of `WhisperFeatureExtractor`, for any hop, window and number of bins.

Source: Whisper's feature extraction (Radford et al. 2022, arXiv:2212.04356), as transformers computes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LogMel:
    """How a model hears: the settings of its feature extractor.

    Attributes:
        sample_rate: Hz.
        samples: length of the window in samples; shorter waveforms are padded with zeros.
        fft: samples in a frame.
        hop: samples between frames.
        filters: `(fft // 2 + 1, M)`, the mel filters.
    """

    sample_rate: int
    samples: int
    fft: int
    hop: int
    filters: NDArray[np.float64]

    @classmethod
    def of(cls, extractor: Any) -> "LogMel":
        """Take the settings of a `WhisperFeatureExtractor`; its dither, which is random, is not applied."""
        return cls(
            sample_rate=int(extractor.sampling_rate),
            samples=int(extractor.n_samples),
            fft=int(extractor.n_fft),
            hop=int(extractor.hop_length),
            filters=np.asarray(extractor.mel_filters, dtype=np.float64),
        )

    @property
    def frames(self) -> int:
        """Frames in a window."""
        return self.samples // self.hop

    def __call__(
        self, waveforms: Sequence[NDArray[np.floating[Any]]], *, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Return the features `(B, M, frames)` of B mono waveforms at `sample_rate`, none longer than the window."""
        padded = np.zeros((len(waveforms), self.samples), dtype=np.float64)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        signal = torch.from_numpy(padded).to(device, dtype)
        window = torch.hann_window(self.fft, device=device, dtype=dtype)
        spectrum = torch.stft(signal, self.fft, self.hop, window=window, return_complex=True)[..., :-1]
        power = (spectrum.real.square() + spectrum.imag.square()).contiguous()
        mel = torch.from_numpy(self.filters).to(device, dtype).T @ power
        log = mel.clamp(min=1e-10).log10()
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0
