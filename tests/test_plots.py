"""``--plot``: pictures of a scorecard that name what they measure, from both commands."""

import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from core.learning.backtest import run
from core.learning.measures import by_window, measures
from core.learning.scorecard import Scorecard, Scored
from core.learning.walk import PREDICTORS
from schemas.scorecard import LearnedScorecard
from stream_app import plots, scorecards
from stream_app.cli import cli
from stream_app.errors import ParallaxError
from stream_app.plots import Plot
from tests.planted import Planted
from tests.test_backtest_cli import lines_of
from tests.test_scorecard_command import card

FIRST = date(2026, 3, 1)
TRUTH = Planted(windows=30, series=12, base={"google_ads": 0.04, "meta": 0.02})
NAMES = (
    "Log-loss per impression, relative to the platform mean",
    "left is better",
    "Calibration curve: predicted against observed CTR",
    "Coverage of the 90 % interval, by volume of the row",
    "Log-loss over days, relative to the platform mean",
    "default",
    "model",
    "platform_mean",
    "last_value",
)


@pytest.fixture(scope="module")
def judged() -> Scorecard:
    return run(TRUTH.history(), 15).scorecard


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "rows.csv"
    rows = lines_of(TRUTH)
    lines = [list(rows[0]), *(map(str, row.values()) for row in rows)]
    path.write_text("\n".join(map(",".join, lines)))
    return path


def plot(of: Scorecard, notes: Sequence[str] = ("nothing beats <it>",)) -> Plot:
    return Plot(of, "CTR predictions & more", notes, lambda window: FIRST + timedelta(days=window), "day")


def text_of(svg: bytes) -> str:
    drawn = ElementTree.fromstring(svg)  # noqa: S314 - made here
    return " ".join("".join(part.itertext()) for part in drawn.iter() if part.tag.endswith("text"))


class Outside(HTMLParser):
    """Collects what a page would load or run, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [tag] * (tag in ("script", "link", "iframe", "img", "image", "object", "embed", "base"))
        for name, value in attrs:
            inside = not value or value.startswith("#")
            if name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster") and not inside:
                self.loaded.append(f"{tag} {name}={value}")
            self.loaded += re.findall(r"url\([^#)][^)]*\)|@import", value or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        self.loaded += re.findall(r"url\([^#)][^)]*\)|@import", data)


def test_a_png_has_the_size_of_a_page(judged: Scorecard) -> None:
    drawn = plots.render(plot(judged), ".png")
    assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", drawn[16:24]) == (1200, 900)


def test_a_picture_names_measures_predictors_rows_and_values(judged: Scorecard) -> None:
    text = text_of(plots.render(plot(judged), ".svg"))
    for name in (*NAMES, "180 rows, 81,294 impressions, 2026-03-16 to 2026-03-30", "CTR predictions & more"):
        assert name in text
    whole = {one.predictor: one.log_loss for one in measures(judged) if one.axis == "all"}
    for name in PREDICTORS:
        assert f"{100 * (whole[name] / whole['platform_mean'] - 1):+.2f} %  {whole[name]:.5f}" in text, name


def test_a_page_needs_nothing_else(judged: Scorecard) -> None:
    page = plots.render(plot(judged), ".html").decode()
    found = Outside()
    found.feed(page)
    assert found.loaded == []
    text = " ".join(found.text)
    for name in (*NAMES, "normalized entropy", "nothing beats <it>"):
        assert name in text
    assert "<it>" not in page
    for one in measures(judged):
        if one.axis == "all":
            assert f"{one.log_loss:.6f}" in text


@pytest.mark.parametrize("kind", [".png", ".svg", ".html"])
def test_the_same_scorecard_gives_the_same_bytes(judged: Scorecard, kind: str) -> None:
    assert plots.render(plot(judged), kind) == plots.render(plot(judged), kind)


@pytest.mark.parametrize("clicks", [0.0, 100.0])
def test_one_row_is_enough_whatever_it_showed(clicks: float, tmp_path: Path) -> None:
    one = Scorecard(PREDICTORS)
    rate = Scored(np.array([0.5]), np.array([1.0]), np.array([1.0]))
    one.add(3, np.array([100.0]), np.array([clicks]), dict.fromkeys(PREDICTORS, rate), ["meta"], np.zeros(1))
    for kind in plots.KINDS:
        plots.write(tmp_path / f"one{kind}", plot(one))
        assert (tmp_path / f"one{kind}").stat().st_size > 1_000
    with pytest.raises(ParallaxError, match="nothing was scored"):
        plots.write(tmp_path / "none.png", plot(Scorecard(PREDICTORS)))
    assert not (tmp_path / "none.png").exists()


def test_losses_by_window_add_up_and_trail(judged: Scorecard) -> None:
    windows = by_window(judged)
    assert [one.window for one in windows] == list(range(15, 30))
    total = sum(one.impressions for one in windows)
    for name in PREDICTORS:
        whole = next(one.log_loss for one in measures(judged) if (one.axis, one.predictor) == ("all", name))
        assert sum(one.impressions * one.log_loss[name] for one in windows) / total == pytest.approx(whole)
        assert by_window(judged, 15)[-1].log_loss[name] == pytest.approx(whole)
    assert by_window(judged, 7)[0] == windows[0]


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_backtest_draws(suffix: str, table: Path, tmp_path: Path) -> None:
    path = tmp_path / f"card.{suffix}"
    done = CliRunner().invoke(cli, ["backtest", str(table), "--split", "2026-03-16", "--plot", str(path)])
    assert done.exit_code == 0, done.output
    assert "verdict:" in done.output
    drawn = path.read_bytes()
    if suffix == "png":
        assert drawn.startswith(b"\x89PNG")
    else:
        assert "one day ahead" in drawn.decode()
        assert "2026-03-16 to 2026-03-30" in drawn.decode()


def test_a_longer_horizon_is_named(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "card.svg"
    options = ["--split", "2026-03-16", "--horizon", "7d", "--plot", str(path)]
    assert CliRunner().invoke(cli, ["backtest", str(table), *options]).exit_code == 0
    text = text_of(path.read_bytes())
    assert "7 days ahead" in text
    assert "windows that begin 2026-03-16 to 2026-03-30" in text


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[int, LearnedScorecard]:
    found = {0: card(0, 5), 1: card(10, 4)}
    monkeypatch.setattr(scorecards, "newest", lambda _settings: found)
    return found


def test_scorecard_draws_all_partitions(published: dict[int, LearnedScorecard], tmp_path: Path) -> None:
    path = tmp_path / "card.svg"
    done = CliRunner().invoke(cli, ["scorecard", "--plot", str(path)])
    assert done.exit_code == 0, done.output
    rows = scorecards.summary(list(published.values()))["rows"]
    assert f"{rows:,} rows" in text_of(path.read_bytes())
    assert "1970-01-01 to 1970-01-05" in text_of(path.read_bytes())
    published.clear()
    nothing = CliRunner().invoke(cli, ["scorecard", "--plot", str(tmp_path / "none.png")])
    assert nothing.exit_code == 1
    assert "no day has been scored, so" in nothing.output


BAD: dict[str, tuple[str, str]] = {
    "suffix": ("card.pdf", ".png, .svg or .html"),
    "none": ("card", ".png, .svg or .html"),
    "folder": ("absent/card.png", "there is no folder"),
    "directory": ("taken.png", "cannot be written"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("command", ["scorecard", "backtest"])
def test_a_bad_target_is_one_line(
    case: str, command: str, published: dict[int, LearnedScorecard], table: Path, tmp_path: Path
) -> None:
    name, says = BAD[case]
    (tmp_path / "taken.png").mkdir()
    rest = [str(table), "--split", "2026-03-16"] if command == "backtest" else []
    done = CliRunner().invoke(cli, [command, *rest, "--plot", str(tmp_path / name)])
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    if case != "directory":
        assert done.stdout == "", "asked before the work"


def test_commands_that_draw_nothing_do_not_import_matplotlib() -> None:
    code = "import sys, stream_app.plots, stream_app.cli, stream_app.app; sys.exit('matplotlib' in sys.modules)"
    root: Any = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
