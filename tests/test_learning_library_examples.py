"""The examples run as README shows them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHOWN = dict(re.findall(r"^\$ python -m (examples\.\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S))
EXAMPLES = ("normalize_and_compare", "aggregate_campaign", "train", "extract_patterns", "score_creative", "cold_start")


def test_readme_shows_every_example() -> None:
    assert set(SHOWN) == {f"examples.{name}" for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_readme_shows(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == SHOWN[f"examples.{name}"]


def test_examples_take_from_core_what_they_need_of_it() -> None:
    for name in EXAMPLES[:-1]:
        source = (ROOT / "examples" / f"{name}.py").read_text()
        assert re.search(r"^from core import ", source, re.M), name
        assert not re.search(r"^from (core\.|schemas|stream_app)", source, re.M), name
