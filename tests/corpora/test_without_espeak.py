"""Without espeak-ng, an extra because of its licence, the shipped suites give the same audio."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import spoken_speech

from emtta_core.corpora import espeak
from emtta_core.corpora.espeak import SPOKEN
from emtta_core.store import Catalogue, Store
from emtta_core.store.schema import PreparedRow

BLOCKED = "import sys; sys.modules['espeakng_loader'] = None  # so that importing it fails\n"
WAVEFORMS = """
import hashlib, json, spoken_speech
from emtta_core.corpora.espeak import synthesise
print(json.dumps({one.key: hashlib.sha256(synthesise(one).waveform).hexdigest() for one in spoken_speech.sentences()}))
"""
COMMAND = "from flows.cli.main import main; main()"
# Each argument is a command, as a JSON list; all run in one process, because their imports take seconds. For each,
# prints its exit code and output as a line of JSON.
COMMANDS = """
import contextlib, io, json, sys
from flows.cli.main import main
for words in map(json.loads, sys.argv[1:]):
    sys.argv[1:] = words
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([code or 0, said.getvalue()]))
"""


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    folders = (Path(spoken_speech.__file__).parent, Path(espeak.__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
    )


def prepared(location: Path) -> list[PreparedRow]:
    store = Store.open(location)
    with Catalogue(store) as catalogue:
        found = [store.prepared(name) for (name,) in catalogue.query("SELECT DISTINCT corpus_id FROM prepared").rows]
    assert len(found) == 3
    return sorted((row for corpus in found for row in store.read_prepared(corpus)), key=str)


def test_shipped_sentences_are_identical() -> None:
    done = run(BLOCKED + WAVEFORMS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {
        one.key: hashlib.sha256(espeak.synthesise(one).waveform).hexdigest() for one in spoken_speech.sentences()
    }
    assert len(found) == 178
    assert SPOKEN.stat().st_size < 8e6


@pytest.mark.slow  # consists of the sentences above
def test_shipped_suite_audio_is_identical(tmp_path: Path) -> None:
    for store, script in (("without", BLOCKED + COMMAND), ("with", COMMAND)):
        done = run(script, "prepare", "smoke", "--store", tmp_path / store)
        assert done.returncode == 0, done.stderr
    assert prepared(tmp_path / "without") == prepared(tmp_path / "with")


@pytest.mark.slow
def test_commands_work_or_name_install(tmp_path: Path) -> None:
    suite, store = tmp_path / "more.toml", ("--store", str(tmp_path / "store"))
    suite.write_text(
        """
        name = "more"
        methods = ["source"]
        model = { name = "demo" }
        domains = [{ name = "seed", group = "clean", corpus = { name = "synthetic", seed = 7 } }]
        """
    )
    commands = (("doctor", "smoke", *store), ("doctor", str(suite), *store), ("prepare", str(suite), *store))
    done = run(BLOCKED + COMMANDS, *map(json.dumps, commands))
    assert done.returncode == 0, done.stderr
    found = [(code, " ".join(text.split())) for code, text in map(json.loads, done.stdout.splitlines())]
    shipped, other, prepared_other = found
    assert shipped[0] == 0, shipped
    assert "for other sentences: pip install 'emtta[synthetic]'" in shipped[1]
    for (code, output), expected in ((other, 1), (prepared_other, 3)):
        assert (code, "espeak-ng is not installed" in output) == (expected, True), output
        assert "pip install 'emtta[synthetic]'" in output
