"""What a newcomer and a deployment rely on: locks, make targets, containers and their settings."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from stream_app.settings import FILE_VARIABLE, Settings, load, variable

ROOT = Path(__file__).parents[1]
LOCKS = ("run", "dev")
KNOWN = {variable(name) for name in Settings.model_fields} | {FILE_VARIABLE}


def compose_command() -> list[str]:
    """``docker compose`` where it is installed, else ``docker-compose``, else nothing."""
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


COMPOSE = compose_command()


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def pins(lock: str) -> dict[str, set[str]]:
    """Versions by package."""
    versions: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / f"requirements/{lock}.txt").read_text(), re.M):
        versions.setdefault(package, set()).add(version)
    return versions


def package(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9-]+", requirement)
    assert match is not None
    return match[0].lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_is_pinned_with_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / f"requirements/{lock}.txt").read_text()
    assert "://" not in text
    assert "index" not in text
    entries = text.replace("\\\n", " ").splitlines()
    assert len(entries) > 30
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry


def test_the_locks_have_what_the_project_names() -> None:
    named = project()
    extras = named["optional-dependencies"]
    runtime = {package(line) for line in (*named["dependencies"], *extras["build"])}
    assert runtime <= pins("run").keys()
    assert runtime | {package(line) for line in extras["dev"]} <= pins("dev").keys()
    assert not {"pytest", "mypy"} & pins("run").keys()


def test_the_two_locks_agree() -> None:
    dev = pins("dev")
    assert {name: versions for name, versions in pins("run").items() if dev[name] != versions} == {}


def test_help_lists_every_target() -> None:
    told = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    targets = re.findall(r"^make ([\w-]+)", told, re.M)
    assert targets == ["help", "setup", "demo", "check", "test", "bench", "chaos", "chaos-long", "lock", "clean"]


def test_ci_checks_then_tests() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "set -euo pipefail" in script
    assert re.findall(r"^make .*\b(\w+)$", script, re.M) == ["check", "test"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def variables_of_compose() -> set[str]:
    text = (ROOT / "docker-compose.yml").read_text()
    return set(re.findall(r"\b(?:PARALLAX|REDIS|CACHE)_[A-Z_]+\b", text))


def variables_of_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_containers_and_example_name_real_settings_only() -> None:
    in_image = set(re.findall(r"\bPARALLAX_[A-Z_]+", (ROOT / "Dockerfile").read_text()))
    assert variables_of_compose() - KNOWN == set()
    assert variables_of_example().keys() - KNOWN == set()
    assert in_image - KNOWN == set()


def test_the_example_is_a_valid_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables_of_example().items():
        monkeypatch.setenv(name, value)
    settings = load()
    defaults = Settings()
    differing = {name for name in Settings.model_fields if getattr(settings, name) != getattr(defaults, name)}
    assert differing == {"accounts", "patterns_every"}


def test_ports_are_published_on_loopback_only() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    published = re.findall(r'^\s+- "?([\d.:]+:\d+)"?$', text, re.M)
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_runs_without_root_and_from_the_lock() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = text.split("FROM ")[1:]
    assert len(stages) == 2
    assert "--require-hashes" in stages[0]
    assert re.search(r"^USER (?!root)\w+", stages[1], re.M)


@pytest.mark.skipif(not COMPOSE, reason="no docker-compose here: the other tests check the file's names")
def test_compose_takes_the_file() -> None:
    checked = subprocess.run([*COMPOSE, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "tests.servers"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "idempotent", "tests/test_topics.py"],
    ],
)
def test_without_java_and_docker_one_line_says_what_to_install(command: list[str], tmp_path: Path) -> None:
    ended = on_a_bare_machine(command, tmp_path)
    assert ended.returncode == 2
    told = [line for line in (ended.stdout + ended.stderr).splitlines() if "install Java" in line]
    assert len(told) == 1
    assert "or Docker" in told[0]
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "skipped" not in ended.stdout


def test_without_java_and_docker_tests_in_several_processes_do_not_begin(tmp_path: Path) -> None:
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "-k", "idempotent", "tests/test_topics.py"]
    ended = on_a_bare_machine(command, tmp_path)
    assert ended.returncode == 2
    assert "install Java" in ended.stdout
    assert "passed" not in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


def on_a_bare_machine(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    bare = {"PATH": str(folder), "HOME": str(folder), "DOCKER_HOST": "tcp://127.0.0.1:1"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
