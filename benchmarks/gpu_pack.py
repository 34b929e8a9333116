"""Pack a model and real speech, in small pieces, for a machine that has only the engine.

    python benchmarks/real_speech.py SHARE OUT --lay-out-only      # the corpora, where the suite `paper` finds them
    python benchmarks/gpu_pack.py OUT/corpora whisper-base PIECES  # needs all of emtta
    bash benchmarks/gpu.sh collect PIECES                          # on that machine, whenever pieces arrive
    bash benchmarks/gpu.sh                                         # on that machine: gpu_speech.py, among others

The archive contains the model in float16, clean speech and noise as 16-bit samples, each recording once, and the
suite's domains; noise is mixed after unpacking, by the same code as in a run.
"""

import argparse
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from transformers import WhisperForConditionalGeneration

from emtta_core.audio.files import read_audio
from emtta_core.audio.mix import scale_back
from emtta_core.audio.noise_file import NoiseFile
from emtta_core.errors import EmttaError
from emtta_core.identity import digest
from emtta_core.input_files import CORPORA
from emtta_core.suite import Domain, load_suite

PIECE = 60_000_000
"""The maximum size of a piece in bytes."""

SPEECH, UTTERANCES, MODEL, LIST = "speech.npz", "utterances.json", "model", "pieces.json"


def main() -> None:
    """Write the pieces and their list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, help="folder with the extracted corpora")
    parser.add_argument("model", type=Path, help="folder of a Whisper model")
    parser.add_argument("pieces", type=Path, help="folder to write")
    parser.add_argument("--suite", default="paper", help="the suite whose domains to pack (default: %(default)s)")
    parser.add_argument(
        "--piece", type=int, default=PIECE, help="the maximum size of a piece in bytes (default: %(default)s)"
    )
    options = parser.parse_args()
    os.environ[CORPORA] = str(options.corpora.resolve())
    names = write_pieces(archive(options.suite, options.model), options.pieces, options.piece)
    print(f"{len(names)} pieces in {options.pieces}")


def archive(suite: str, model: Path) -> bytes:
    """Return a tar file of the model, recordings and utterances; unavailable domains are reported and left out."""
    recordings: dict[str, NDArray[np.int16]] = {}
    utterances: list[dict[str, Any]] = []
    for domain in load_suite(suite).domains:
        try:
            utterances += packed(domain, recordings)
        except EmttaError as error:
            print(f"domain {domain.name} is left out: {error}")
    speech = io.BytesIO()
    np.savez_compressed(speech, **recordings)  # type: ignore[arg-type]  # it takes them for its own option
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, UTTERANCES, json.dumps(utterances).encode())
        add(tar, SPEECH, speech.getvalue())
        for name, content in halved(model).items():
            add(tar, f"{MODEL}/{name}", content)
    return buffer.getvalue()


def packed(domain: Domain, recordings: dict[str, NDArray[np.int16]]) -> list[dict[str, Any]]:
    """Return a domain's utterances, and add their recordings to `recordings`."""
    noise = domain.corruption
    if noise is not None and not isinstance(noise, NoiseFile):
        raise EmttaError(f"its corruption is {noise.label()}; noise from files alone is packed")
    corpus, mixed = domain.corpus.located(), None
    if noise is not None:
        noise.determinants(str)  # raises an error that says where to get the recording
        mixed = {"kind": noise.kind} | {name: getattr(noise, name) for name in ("snr_db", "snr_over", "level_dbfs")}
        if noise.kind != "gaussian":
            recordings.setdefault(f"noise/{noise.kind}", sixteen_bits(read_audio(noise.recording())))
    found = []
    for one in corpus.read_all():
        key = f"{corpus.name}/{one.id}"
        if key not in recordings:
            recordings[key] = sixteen_bits(scale_back(one.read())[0])
        seed = None if noise is None else int(digest([noise.seed, one.id, noise.kind], 64), 16)
        fields = {"utterance_id": one.id, "speaker": one.speaker, "language": one.language, "reference": one.text}
        found.append(
            {"group": domain.group, "domain": domain.name, "recording": key, "noise": mixed, "seed": seed} | fields
        )
    return found


def sixteen_bits(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """Convert samples to 16 bits, as in a run's FLAC."""
    return np.minimum(np.rint(waveform * 32768), 32767).astype(np.int16)


def halved(model: Path) -> dict[str, bytes]:
    """Return a model's files by name, with weights in float16."""
    files = {
        path.name: path.read_bytes() for path in sorted(model.iterdir()) if path.suffix in (".json", ".txt", ".jinja")
    }
    network = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float16)
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items() if name != "proj_out.weight"}
    return files | {"model.safetensors": save(weights, {"format": "pt"})}


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def write_pieces(content: bytes, folder: Path, max_bytes: int) -> list[str]:
    """Split an archive into files of at most `max_bytes`, and list them with their digests."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("piece-*"):
        old.unlink()
    names = {}
    for number, begin in enumerate(range(0, len(content), max_bytes)):
        part = content[begin : begin + max_bytes]
        names[f"piece-{number:02d}"] = hashlib.sha256(part).hexdigest()
        (folder / f"piece-{number:02d}").write_bytes(part)
    (folder / LIST).write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    return list(names)


if __name__ == "__main__":
    main()
