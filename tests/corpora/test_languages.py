"""The language is the corpus's, or detected by the source model as Whisper does; it is recorded and reported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command, Speech, SuiteFile
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration
from whisper_factory import LANGUAGES, make_checkpoint, sounds

from emtta_core.adaptation import Adapter
from emtta_core.errors import UsageError
from emtta_core.model import SpeechModel, load_model
from emtta_core.model.speech_model import detect_language
from emtta_core.pipeline import batches
from emtta_core.pipeline.batches import adapt
from emtta_core.store import PreparedRow, Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.suite import ModelChoice


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SpeechModel:
    return load_model(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("english"), multilingual=False)


def test_detection_matches_transformers(model: SpeechModel, tiny_model: Path) -> None:
    theirs = WhisperForConditionalGeneration.from_pretrained(tiny_model).eval()
    extractor = WhisperFeatureExtractor.from_pretrained(tiny_model)
    ids = theirs.generation_config.lang_to_id
    waveforms = sounds(np.linspace(0.3, 4.0, 12).tolist(), seed=5)
    features = extractor(waveforms, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = theirs.detect_language(features)
        start = torch.full((len(waveforms), 1), theirs.generation_config.decoder_start_token_id)
        logits = theirs(input_features=features, decoder_input_ids=start).logits[:, -1]
    chances = logits[:, [ids[f"<|{code}|>"] for code in LANGUAGES]].softmax(-1).amax(-1)
    names = {index: token.strip("<|>") for token, index in ids.items()}
    found = [detect_language(model, waveform) for waveform in waveforms]
    assert [each.language for each in found] == [names[index] for index in expected.tolist()]
    assert len({each.language for each in found}) > 1
    torch.testing.assert_close(torch.tensor([each.probability for each in found]), chances, rtol=0, atol=1e-4)


def test_monolingual_model_cannot_detect(english: Path) -> None:
    model = load_model(english, device="cpu")
    with pytest.raises(UsageError, match=r"knows only the language 'en'.*language = 'corpus'"):
        detect_language(model, sounds([1.0])[0])
    with pytest.raises(UsageError, match="there is none to detect"):
        next(adapt(Adapter(model, "source"), [], ModelChoice(name=model.name, language="detect")))
    with pytest.raises(UsageError, match=r"unknown language 'de': this model knows only 'en'.*'\.en'"):
        model.prompt.rows(["de"], model.device)


@pytest.mark.parametrize(("languages", "expected"), [(("en", "zh", "yue"), "yue"), (("en", "zh"), "zh")])
def test_cantonese_falls_back_to_chinese(languages: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    model = load_model(make_checkpoint(tmp_path / "model", languages=languages), device="cpu")
    (prompt,) = model.prompt.rows(["yue"], model.device).tolist()
    assert tuple(prompt) == model.prompt.tokens[expected]
    assert model.languages == tuple(sorted(languages))  # only languages with a token can be detected
    with pytest.raises(UsageError, match="unknown language 'de'"):
        model.prompt.rows(["yue", "de"], model.device)


def test_scoring_uses_corpus_language(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str, model: SpeechModel
) -> None:
    manifest = "path,text,language\ngood0.wav,one boat,en\ngood1.wav,jedna łódka,pl\ngood2.wav,ein boot,de\n"
    (speech.path / "manifest.csv").write_text(manifest)  # the model does not know Polish, but detection replaces it
    path = suite_file()
    path.write_text(path.read_text().replace("model = {", 'model = { language = "detect",'))
    store = tmp_path / "store"
    assert emtta("run", path, "--store", store).code == 0
    with Catalogue(Store.open(store)) as catalogue:
        rows = catalogue.query(
            "SELECT utterance_id, spoken, language, language_probability, method FROM windows ORDER BY ALL"
        ).rows
        scored = catalogue.query("SELECT DISTINCT language, normalizer FROM utterances ORDER BY 1").rows
        report = catalogue.report("languages", method="source").records
    assert [(row[0], row[1]) for row in rows[::2]] == [("good0", "en"), ("good1", "pl"), ("good2", "de")]
    # The rows of both methods: detection uses the source model.
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one[:4] == other[:4]
        assert one[2] in LANGUAGES
        assert 1 / len(LANGUAGES) <= one[3] <= 1
    assert [language for language, _ in scored] == ["de", "en", "pl"]
    assert dict(scored)["en"] != dict(scored)["de"]
    assert sum(row["utterances"] for row in report) == 3
    assert {row["spoken"] for row in report} == {"de", "en", "pl"}


def test_unknown_language_fails_alone(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    manifest = "path,text,language\ngood0.wav,jedna łódka,pl\ngood1.wav,dwie łódki,pl\ngood2.wav,ein boot,de\n"
    (speech.path / "manifest.csv").write_text(manifest)
    path, store = suite_file(methods=("source",)), tmp_path / "store"
    path.write_text(path.read_text().replace("runtime = {", "runtime = { retry_on_error = 1,"))
    outcome = emtta("run", path, "--store", store)
    assert outcome.code == 0, outcome.err
    assert "utterances in error: 2" in outcome.err
    (run_id,) = Store.open(store).runs()
    again = emtta("rerun", run_id, "--failed", "--store", store)
    assert again.code == 0, again.err
    query = "select state, done, in_error from cells"
    assert emtta("sql", query, "--store", store, "--format", "csv").out.split()[1:] == ["complete,3,2"]


def test_domain_of_unknown_languages_fails(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    (speech.path / "manifest.csv").write_text("path,text,language\ngood0.wav,jedna łódka,pl\ngood1.wav,łódki,cs\n")
    outcome = emtta("run", suite_file(methods=("source",)), "--store", tmp_path / "store")
    assert outcome.code == 3
    assert "unknown language 'pl'" in " ".join(outcome.err.split())


def test_chunks_limit_audio_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHUNK_SECONDS", 10.0)
    rows = [
        PreparedRow(
            utterance_id=str(seconds),
            audio=None,
            text="",
            language="en",
            speaker="",
            seconds=seconds,
            corruption=None,
            snr_db=None,
        )
        for seconds in (4.0, 5.0, 6.0, 30.0, 1.0)
    ]
    assert [[row.seconds for row in chunk] for chunk in batches._chunks(rows)] == [[4.0, 5.0, 6.0], [30.0], [1.0]]
