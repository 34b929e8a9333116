"""The command finds emtta's own packages and SQL, even if others are also called `flows`, `tasks` or `sql`."""

import base64
import hashlib
import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from emtta_core import entry
from emtta_core.errors import EmttaError, StoreError

THEIRS = "raise SystemExit('another program of that name was imported')\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project whose files have the names of emtta's packages."""
    names = ("tasks.py", "flows/__init__.py", "flows/nightly.py", "sql/__init__.py")
    return write(tmp_path / "project", dict.fromkeys(names, THEIRS))


def python(project: Path, *words: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run Python in the project's folder, or another one; the project is on PYTHONPATH too."""
    path = os.pathsep.join([str(project), str(entry.ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "PREFECT_HOME": str(project / "prefect")}
    return subprocess.run(
        [sys.executable, *words], cwd=folder or project, env=environment, capture_output=True, text=True
    )


SETTLE = "from emtta_core.entry import configure_process; configure_process()"
"""The first statements of emtta's own processes: the temporary server, and Ray's workers."""


WAYS = {
    "the script": (["-c", "from emtta_core.entry import main; main()", "suites"], "smoke"),
    "the module": (["-m", "emtta_core", "suites"], "smoke"),
    "a report": (["-m", "emtta_core", "report"], "leaderboard"),
    "a process of emtta's own": (["-P", "-c", f"{SETTLE}; import tasks, flows; print(tasks, flows)"], str(entry.ROOT)),
    "a flow that Prefect loads": (
        ["-c", "from prefect.flows import load_flow_from_entrypoint as f; print(f('emtta_core.entry.nightly').name)"],
        "nightly",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_user_namesakes_are_not_imported(project: Path, way: str) -> None:
    words, shown = WAYS[way]
    done = python(project, *words)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_prefect_yaml_loads_own_flow(project: Path) -> None:
    load = "from prefect.flows import load_flow_from_entrypoint as f; print(f('flows/nightly.py:nightly', False).name)"
    done = python(project, "-c", load, folder=entry.ROOT)
    assert (done.returncode, done.stdout) == (0, "nightly\n"), done.stderr


def test_importer_keeps_own_files(project: Path) -> None:
    done = python(project, "-c", "import emtta_core.entry, tasks")
    assert "another program of that name was imported" in done.stderr


def test_imported_namesake_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tasks", ModuleType("tasks"))
    with pytest.raises(EmttaError, match=r"its own package 'tasks'.*already imported"):
        entry.configure_process()


def test_foreign_files_in_sql_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(entry.SQL.rglob("*.py"))
    write(tmp_path, {"sql/reports/theirs.sql": "SELECT 1"})
    reports = importlib.import_module("emtta_core.store.reports")
    monkeypatch.setattr(reports, "SQL", tmp_path / "sql")
    with pytest.raises(StoreError, match=r"theirs\.sql is not an SQL file of emtta"):
        reports._load("reports")
    with pytest.raises(StoreError, match=r"missing from .*views; install emtta again"):
        reports._load("views")


INSTALLED = {"emtta_core/entry.py": "1", "flows/__init__.py": "2", "tasks/cells.py": "3", "sql/views/a.sql": "4"}


def install(site: Path, name: str, files: dict[str, str]) -> None:
    """Install a package as pip does: its files, and a RECORD with their digests."""
    write(site, files)
    lines = [
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},1"
        for file, text in files.items()
    ]
    about = f"{name.replace('-', '_')}-1.0.dist-info"
    write(site / about, {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"})
    write(site / about, {"RECORD": "\n".join(lines), "direct_url.json": '{"url": "file:///wheels/emtta.whl"}'})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages folder that contains emtta."""
    install(tmp_path, "emtta", INSTALLED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(entry, "ROOT", tmp_path)
    return tmp_path


def test_intact_install_is_accepted(site: Path) -> None:
    install(site, "ipython-sql", {"sql/__init__.py": "theirs", "tasks/theirs.py": "theirs"})
    entry.check_installed_files()


@pytest.mark.parametrize("file", [name for name in INSTALLED if not name.startswith("emtta_core")])
def test_overwritten_files_are_refused(site: Path, file: str) -> None:
    install(site, "other-flows", {file: "theirs"})
    with pytest.raises(EmttaError) as refused:
        entry.check_installed_files()
    assert f"{file}, which other-flows also installs," in str(refused.value)
    assert "pip install --force-reinstall --no-deps 'file:///wheels/emtta.whl'" in str(refused.value)


def test_removed_files_are_refused(site: Path) -> None:
    (site / "tasks/cells.py").unlink()
    with pytest.raises(EmttaError, match=r"tasks/cells\.py"):
        entry.check_installed_files()


@pytest.mark.slow
def test_wheel_runs_among_namesakes(project: Path, tmp_path: Path) -> None:
    """Install a real wheel in a new environment that contains `ipython-sql`'s folder, inside a user's project."""
    source = tmp_path / "source"
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=entry.ROOT, check=True, capture_output=True)
    source.mkdir()
    subprocess.run(["tar", "x", "-C", source], input=archive.stdout, check=True)
    build = "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=source, check=True, capture_output=True, text=True
    )
    wheel = tmp_path / made.stdout.split()[-1]
    other = tmp_path / "ipython_sql-1.0-py3-none-any.whl"
    about = "ipython_sql-1.0.dist-info"
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("sql/__init__.py", THEIRS)
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: ipython-sql\nVersion: 1.0\n")
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", f"sql/__init__.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    venv = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    shared = [folder for folder in sys.path if folder.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(shared))
    for what in (wheel, other):
        subprocess.run([venv / "bin/pip", "install", "--no-deps", "--no-index", what], check=True, capture_output=True)

    def emtta(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "PYTHONPATH": str(project), "PREFECT_HOME": str(tmp_path / "prefect")}
        environment.pop("PREFECT_API_URL", None)
        return subprocess.run(
            [venv / "bin/emtta", *words], cwd=project, env=environment, capture_output=True, text=True
        )

    done = emtta("run", "smoke", "--limit", "1", "--only", "domain=Scotland", "--store", "store")
    assert done.returncode in (0, 3), done.stderr
    shown = emtta("report", "leaderboard", "--store", "store", "--format", "csv")
    assert shown.returncode == 0, shown.stderr
    assert "em-tok-b" in shown.stdout
    (site / "tasks/__init__.py").write_text(THEIRS)
    refused = emtta("list", "--store", "store")
    assert refused.returncode == 1
    assert "tasks/__init__.py" in refused.stderr
    restore = refused.stderr.split("restore it: ")[1].split("'")[:2]
    subprocess.run([venv / "bin/pip", *restore[0].split()[1:], "--no-index", restore[1]], check=True)
    assert emtta("list", "--store", "store").returncode == 0
