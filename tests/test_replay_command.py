"""``replay`` and ``dead-letters`` where something is wrong: one line, its exit code, and nothing done."""

from typing import Any

import pytest
from click.testing import CliRunner

from core.replay import Difference, Finding, Held
from stream_app import replay as replaying
from stream_app.cli import cli
from stream_app.replay import Outcome, Promotion
from tests.test_cli import CANARY, SECRETS, _bare_environment, process, run, the_line

__all__ = ["_bare_environment"]

COMMANDS = (("replay",), ("dead-letters", "list"), ("dead-letters", "redrive", "--yes"))


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_wrong_setting_and_an_absent_server_are_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    ended = process(*arguments)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "PARALLAX_KAFKA_BOOTSTRAP" in the_line(ended)
    assert CANARY not in ended.stderr
    monkeypatch.setenv("PARALLAX_PARTITIONS", "many")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "PARALLAX_PARTITIONS" in the_line(result)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("times", "told"),
    [
        (("--from", "yesterday"), "--from"),
        (("--to", "2026-01-05T10:00:00"), "--to"),
        (("--from", "2026-02-30"), "--from"),
        (("--to", "1767225600"), "--to"),
        (("--from", "2026-01-05", "--to", "2026-01-05"), "--to 2026-01-05 is not after --from 2026-01-05"),
        (("--from", "2026-01-05T00:00:00+02:00", "--to", "2026-01-04T21:00:00Z"), "is not after"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_times_are_one_line(arguments: tuple[str, ...], times: tuple[str, ...], told: str) -> None:
    result = run(*arguments, *times)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in the_line(result)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("replay", "--window", "5m"), "window 5m is not computed here: PARALLAX_WINDOWS is 1h,24h,7d"),
        (("dead-letters", "list", "--code", "too_lat"), "too_lat is no code of a dead letter"),
        (("dead-letters", "redrive", "--topic", "ads.rollups"), "ads.rollups is no input topic: choose from ads."),
    ],
)
def test_a_wrong_option_is_one_line(arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in the_line(result)


def test_what_arrived_in_a_time_alone_is_not_promoted() -> None:
    result = run("replay", "--by", "arrival", "--from", "2026-01-05", "--promote")
    assert result.exit_code == 2
    assert "use --by event" in result.stderr


def outcome(rows: int, **fields: Any) -> Outcome:
    differences = [Difference("c\x1b[2J", "24h", "2026-01-05", f"m{n}", 1_000 * n, None, "topic") for n in range(rows)]
    finding = Finding(
        campaign="c",
        window="24h",
        start="2026-01-05",
        id="i",
        ordinal=1,
        recomputed=None,
        topic=Held(None, 1),
        redis=None,
        wrong=frozenset({"topic"}),
        differences=differences,
    )
    known: dict[str, Any] = {
        "findings": [finding] if rows else [],
        "compared": 1,
        "records": 1,
        "lost": [],
        "behind": 0,
        "live_as_of": "a",
        "recomputed_as_of": "a",
        "hot": False,
        "read_to": [],
    }
    return Outcome(**(known | fields))


def test_a_table_is_cut_and_json_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "replay", lambda *_: outcome(60, behind=12, live_as_of="b"))
    result = run("replay")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 2 + 50 + 1
    assert lines[-1] == "and 10 more"
    assert "49,000" in lines[-2]
    assert "\x1b" not in result.stdout
    assert len(run("replay", "--format", "json").stdout.splitlines()) == 60
    assert result.stderr.splitlines() == [
        "1 insights from 1 records beside insights.latest: 1 differ, in 60 values",
        "the workers have not taken in 12 input records yet: what these say differs",
        "the live side covers up to b, the records read up to a",
    ]


def test_nothing_is_not_called_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "replay", lambda *_: outcome(0, compared=0))
    assert run("replay").stderr == "0 insights from 1 records beside insights.latest: there is nothing to compare\n"
    monkeypatch.setattr(replaying, "replay", lambda *_: outcome(0))
    assert run("replay").stderr == "1 insights from 1 records beside insights.latest: equal\n"


def test_yes_is_asked_for_and_what_moved_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    promoted: list[Any] = []

    def promote(*arguments: Any) -> Promotion:
        promoted.append(arguments)
        return Promotion(0, 0, 1)

    monkeypatch.setattr(replaying, "replay", lambda *_: outcome(1))
    monkeypatch.setattr(replaying, "promote", promote)
    for answer in (b"", b"n\n", b"\n", b"maybe\n"):
        result = run("replay", "--promote", stdin=answer)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == "parallax: nothing was published: nobody said yes (--yes does)"
    assert not promoted
    result = run("replay", "--promote", stdin=b"y\n")
    assert len(promoted) == 1
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith("1 left out, for they had moved on")


@pytest.mark.parametrize("step", ["replay", "promote"])
def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(replaying, "replay", lambda *_: outcome(1))
    monkeypatch.setattr(replaying, step, interrupted)
    result = CliRunner().invoke(cli, ["replay", "--promote", "--yes"])
    assert result.exit_code == 130
    assert "interrupted" in result.stderr.splitlines()[-1]
    assert sum(line.startswith("parallax: ") for line in result.stderr.splitlines()) == 1
