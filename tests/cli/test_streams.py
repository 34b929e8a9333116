"""Output never fails because of its destination, and the process ends with exactly the command's exit code."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flows.cli import _log
from flows.cli.main import _save_traceback, app

PROGRAM = "from flows.cli._output import configure_streams; configure_streams(); import sys; "


def shell(program: str, tail: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in Python, with the shell's redirections in `tail`."""
    command = f'"{sys.executable}" -c "$PROGRAM" {tail}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=os.environ | {"PROGRAM": program} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "ascii:strict"])
def test_unencodable_text_is_escaped(encoding: str) -> None:
    done = shell(PROGRAM + r"print('\u0141\U0001f600\udcff plain')", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout) == (0, r"\u0141\ud83d\ude00\udcff plain" + "\n")


def test_escaped_json_is_still_json() -> None:
    text = "Łódź 😀"
    done = shell(PROGRAM + f"import json; print(json.dumps({text!r}, ensure_ascii=False))", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout) == text


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("tail", ["| head -1", "| true", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_output_keeps_exit_code(tail: str, unbuffered: str) -> None:
    program = PROGRAM + "[print('line', file=where) for _ in range(9999) for where in (sys.stdout, sys.stderr)]"
    done = shell(f"{program}; sys.stdout.flush(); sys.exit(7)", tail, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 7
    assert "Error" not in done.stderr


def test_closed_stdout_fd_is_not_reused(tmp_path: Path) -> None:
    program = (
        PROGRAM + f"import os; file = open({str(tmp_path / 'file')!r}, 'w'); print('lost'); assert file.fileno() > 2"
    )
    done = shell(program, ">&-")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "standard output is closed; results that would be shown there are lost\n"
    assert (tmp_path / "file").read_text() == ""


ALL_HELP = """
import sys
import tempfile
from flows.cli.main import main
for words in {commands!r}:
    sys.argv = ["emtta", *words, "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


def test_every_help_fits_ascii() -> None:
    verbs = [
        [str(command.name or (command.callback and command.callback.__name__))] for command in app.registered_commands
    ]
    groups = [[str(group.name)] for group in app.registered_groups]
    done = shell(ALL_HELP.format(commands=[[], *verbs, *groups]), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == 1 + len(verbs) + len(groups)
    assert not done.stderr


COMMAND = """
import atexit, sys
from flows.cli import main
class Late:
    def __del__(self):
        print("torn down")
sys.late = Late()
atexit.register(print, "at exit")
sys.argv = {argv!r}
main.command()
"""


def test_exit_code_follows_exit_handlers() -> None:
    done = shell(COMMAND.format(argv=["emtta", "run", "no-such-suite"]))
    assert (done.returncode, done.stdout) == (2, "at exit\n")
    assert done.stderr.startswith("error: unknown suite 'no-such-suite'")


def test_full_disk_on_stdout_is_error() -> None:
    done = shell(COMMAND.format(argv=["emtta", "--version"]), ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["run", "no-such"], ["status", "no-such"], ["sql", "nonsense"]])
def test_refused_command_never_aborts(words: list[str]) -> None:
    program = f"import sys; from flows.cli import main; sys.argv = {['emtta', *words]!r}; main.command()"
    for _ in range(100):
        done = shell(program)
        assert done.returncode in (1, 2), done.stderr
        assert "terminate" not in done.stderr


def test_unwritable_error_is_still_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_log, "_files", [])  # a log left by an earlier run would receive the text
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    try:
        raise KeyError("name")
    except KeyError:
        written = _save_traceback()
    assert written.startswith("could not be written to a file:\nTraceback")
    assert "KeyError: 'name'" in written
