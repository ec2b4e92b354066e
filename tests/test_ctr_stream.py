"""Learning in the stream: which days are learned and from what, restarts, crashes, and no knowledge of the future."""

import functools
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import ctr_stream, stored
from core.learning.online import CtrPredictor
from core.learning.scorecard import Scorecard
from schemas import prediction as prediction_codec
from schemas import scorecard as scorecard_codec
from schemas.calendar import instant_ms
from schemas.platform import Platform
from schemas.rollup import Message
from schemas.scorecard import LearnedScorecard
from tests.driven import FIRST, Driven, at, rollup, totals, withdrawn
from tests.histories import DAY, HOUR, T0
from tests.pipeline import put
from tests.test_learning_online import trained

CLOSED = ctr_stream.LAST_ZONE_MS + ctr_stream.LEARN_AFTER_MS


def closes(day: int) -> int:
    """The watermark at which a day, counted from the first, is closed."""
    return T0 + (day + 1) * DAY + CLOSED


def history(days: int = 5, campaigns: int = 3) -> list[Message]:
    """Days in order, each behind a watermark that closes the one before, with restatements of open and closed days; a
    campaign that is onboarded late, and a platform campaign that comes late of one that was on time.
    """
    told: list[Message] = []
    for day in range(days):
        for name in range(campaigns):
            own: dict[str, Any] = {"campaign_id": str(name), "day": FIRST + day}
            told.append(rollup(1, 3 + name * day % 5, **own))
            if name != 1:
                told.append(rollup(1, 4 + day, platform=Platform.TIKTOK, platform_campaign_id="t", **own))
        told.append(rollup(2, 9, campaign_id="0", day=FIRST + day))
        told.append(at(closes(day - 1)))
        if day:
            told.append(rollup(3, 77, campaign_id="0", day=FIRST + day - 1))
        for late in (1, 0) if day == 2 else range(2, day):
            own = {"campaign_id": "onboarded", "day": FIRST + late}
            told.append(rollup(1 + day, 2 + late % 3, **own))
            told.append(rollup(1, 5, platform_campaign_id="x", **(own | {"campaign_id": "0"})))
        if day == 2:
            told.append(at(closes(day - 1) + 1))
    return told


def learned(driven: Driven) -> tuple[int, bytes]:
    while driven.state.pending:
        driven.take()
    return driven.state.ctr.captured, driven.state.ctr.predictor.to_bytes()


@functools.cache
def undisturbed() -> tuple[int, bytes]:
    driven = Driven("24h")
    driven.tell(*history())
    return learned(driven)


def test_a_day_is_learned_when_it_is_over_everywhere_and_a_while_has_passed() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5), at(closes(0) - 1))
    driven.take()
    assert driven.state.ctr.predictor.last_day is None
    driven.tell(at(closes(0)))
    driven.take()
    assert driven.state.ctr.predictor.last_day == FIRST


def test_what_is_learned_are_the_sums_of_a_day_as_it_closes() -> None:
    driven = Driven("24h")
    driven.tell(
        *(rollup(1, 5), rollup(1, 7, platform_campaign_id="2"), rollup(1, 1, platform=Platform.TIKTOK)),
        *(rollup(2, 6), rollup(1, 50, platform_campaign_id="3"), withdrawn(2, platform_campaign_id="3")),
        *(rollup(1, 8, campaign_id="autumn"), at(closes(0)), rollup(3, 99)),
    )
    learned(driven)
    ctr = driven.state.ctr
    expected = CtrPredictor(ctr.platforms, ctr.base_rate)
    keys = [("autumn", "meta"), ("spring", "meta"), ("spring", "tiktok")]
    expected.close(FIRST, keys, np.array([800.0, 1300.0, 100.0]), np.array([8.0, 13.0, 1.0]))
    assert ctr.predictor.to_bytes() == expected.to_bytes()


def test_more_clicks_than_impressions_are_as_many() -> None:
    few, equal = Driven("24h"), Driven("24h")
    few.tell(msgspec.structs.replace(rollup(1, 5), day_totals=totals(9, 4)), at(closes(0)))
    equal.tell(msgspec.structs.replace(rollup(1, 5), day_totals=totals(4, 4)), at(closes(0)))
    assert learned(few) == learned(equal)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, len(history()) - 1)), st.sampled_from((1, 10**9)))
def test_any_batching_learns_the_same(cuts: set[int], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctr_stream, "SERIES_AT_ONCE", at_once)
        driven = Driven("24h")
        for place, message in enumerate(history()):
            driven.tell(message)
            if place in cuts:
                driven.take()
            if place - 1 in cuts:
                driven.restart()
                driven.again()
        assert learned(driven) == undisturbed()


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_a_crash_at_any_write_learns_nothing_twice_and_loses_nothing(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctr_stream, "SERIES_AT_ONCE", at_once)
    monkeypatch.setattr(stored, "CHUNK", 4_000)
    told = history()
    for first in (len(told) // 2, len(told)):
        whole = Driven("24h")
        whole.tell(*told[:first])
        writes = len(whole.take().writes)
        for survive in range(writes + 1):
            driven = Driven("24h")
            driven.tell(*told[: len(told) // 3])
            driven.take()
            driven.tell(*told[len(told) // 3 : first])
            driven.die(survive)
            driven.again()
            driven.die(survive // 2)
            driven.again()
            driven.tell(*told[first:])
            assert learned(driven) == undisturbed(), (first, survive)


def test_a_state_that_was_not_written_to_its_end_is_not_the_one_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "CHUNK", 1_000)
    driven = Driven("24h")
    driven.tell(rollup(1, 5), at(closes(0)))
    driven.take()
    before = driven.state.ctr.predictor.to_bytes()
    driven.tell(rollup(1, 6, day=FIRST + 1), at(closes(1)))
    writes = driven.state.take(10**6, preliminary=True).writes
    chunks = [write for write in writes if stored.parse_key(write.key)[:2] == (stored.CTR, "state")]
    assert len(chunks) > 2
    put(driven.table, chunks[:-1])
    driven.restart()
    assert driven.state.ctr.predictor.to_bytes() == before
    put(driven.table, chunks[-1:])
    driven.restart()
    assert driven.state.ctr.predictor.last_day == FIRST + 1


def test_the_bytes_of_a_state_fit_their_records() -> None:
    assert stored.CHUNK + 100 < 1 << 20


def test_the_scorecard_is_published_when_a_day_was_learned_and_after_a_restart() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5), at(closes(-1)))
    assert driven.take().scorecard is None
    driven.tell(at(closes(0)))
    card = driven.take().scorecard
    assert card is not None
    assert (card.first_day, card.last_day, card.model) == (FIRST, FIRST, "")
    assert Scorecard.from_bytes(card.card).windows.keys() == {FIRST}
    driven.tell(rollup(2, 9))
    assert driven.take().scorecard is None
    driven.restart()
    driven.tell(rollup(3, 9))
    assert driven.take().scorecard == card


def test_partitions_score_what_one_would() -> None:
    """Sums of disjoint rows; what was learned differs, so only what does not depend on it is compared."""
    parts = [Driven("24h"), Driven("24h")]
    for message in history():
        for number, part in enumerate(parts):
            if getattr(message, "campaign_id", None) in (None, *(("0", "1") if number else ("2", "onboarded"))):
                part.tell(message)
    whole = Driven("24h")
    whole.tell(*history())
    cards = []
    for driven in (*parts, whole):
        learned(driven)
        cards.append(driven.state.ctr.predictor.scorecard)
    merged = cards[0].merged(cards[1])
    np.testing.assert_array_equal(
        merged.segments["all", "all"][:, :3], cards[2].segments["all", "all"][:, :3], "rows, impressions, clicks"
    )


CARD = LearnedScorecard(first_day=1, last_day=2, model="m", standings={"meta": (True, "r")}, card=b"\x01\x02")
CARD_HEX = "98a973636f726563617264010102a16d81a46d65746192c3a172c402010281a23764c40103"
OF_DAYS_ALONE_HEX = "97a973636f726563617264010102a16d81a46d65746192c3a172c4020102"


def test_version_1_of_a_scorecard_is_for_ever() -> None:
    both = msgspec.structs.replace(CARD, others={"7d": b"\x03"})
    assert scorecard_codec.encode(both).hex() == CARD_HEX
    assert scorecard_codec.decode(bytes.fromhex(CARD_HEX)) == both
    assert scorecard_codec.decode(bytes.fromhex(OF_DAYS_ALONE_HEX)) == CARD
    assert [both.of(horizon) for horizon in ("1h", "1d", "7d")] == [None, b"\x01\x02", b"\x03"]
    with pytest.raises(ValueError, match="version 2"):
        scorecard_codec.decode(scorecard_codec.encode(msgspec.structs.replace(CARD, version=2)))
    with pytest.raises(ValueError, match="not a scorecard"):
        scorecard_codec.decode(b"{}")


def test_features_end_before_the_label_begins_in_any_zone() -> None:
    """Scenario: one campaign ended long ago; what others taught since must not predict its days of then."""
    driven = Driven("1h", "24h", "7d")
    for zone in ("", "Pacific/Auckland", "America/Los_Angeles"):
        driven.tell(rollup(1, 5, campaign_id=f"old{zone}", zone=zone, hours={3: 5}))
        for day in range(6):
            driven.tell(rollup(1, 5, campaign_id=f"new{zone}", zone=zone, day=FIRST + day, hours={3: 5}))
    driven.tell(at(closes(4)))
    found = driven.state.predictions()
    until = T0 + 5 * DAY + 12 * HOUR
    assert len(found) == 18
    for one in found:
        assert one.learned_to is not None
        assert instant_ms(one.learned_to) == until
        assert until <= instant_ms(one.feature_end) <= instant_ms(one.label_start) < instant_ms(one.feature_end) + DAY


def test_a_prediction_does_not_change_when_the_future_is_cut_off() -> None:
    told = history(6)
    cut = len(told) - 9
    short, long = Driven("24h"), Driven("24h")
    short.tell(*told[:cut])
    seen = [prediction_codec.encode(each) for each in short.take().predictions]
    long.tell(*told[:cut])
    assert [prediction_codec.encode(each) for each in long.take().predictions] == seen
    long.tell(*told[cut:])
    assert [prediction_codec.encode(each) for each in long.take().predictions] != seen


def test_predicting_leaves_no_trace_in_what_is_learned() -> None:
    one, other = Driven("24h"), Driven("24h")
    for message in history():
        one.tell(message)
        other.tell(message)
        other.take()
        other.state.ctr.predictor.forecast([("9", "meta")], np.zeros(1), np.zeros(1), np.zeros((1, 3)))
    assert learned(one) == learned(other)


def test_an_adopted_model_is_judged_and_survives_a_restart() -> None:
    driven = Driven("24h")
    driven.tell(*history())
    driven.drain()
    model = trained()
    driven.state.adopt(model)
    assert driven.state.pending
    driven.take()
    driven.restart()
    assert driven.state.ctr.model_id == model.model_id
    driven.tell(at(closes(4)))
    card = driven.take().scorecard
    assert card is not None
    assert card.model == model.model_id
    standing = driven.state.ctr.predictor.standings["meta"]
    driven.state.adopt(model)
    assert driven.state.ctr.predictor.standings["meta"] == standing


def test_predictions_say_that_the_newest_model_was_refused_and_are_the_same_otherwise() -> None:
    """Scenario: the newest model that was published is refused, and later a good one comes, or another worker.

    Expectation: predictions say why while it lasts; no other byte of them, no insight and no write depends on it.
    """
    plain, told = Driven("24h"), Driven("24h")
    for number, refused in enumerate(("checksum", None, "truncated", "empty")):
        told.state.ctr.model_refused = refused
        news = (rollup(number + 1, 5 + number), at(closes(number - 4)))
        plain.tell(*news)
        told.tell(*news)
        expected, found = plain.take(), told.take()
        assert (found.writes, found.emissions) == (expected.writes, expected.emissions)
        said = msgspec.UNSET if refused is None else refused
        assert expected.predictions
        assert found.predictions == [msgspec.structs.replace(one, model_refused=said) for one in expected.predictions]
        assert [one for _, hot in told.state.hot() for one in hot] == found.predictions
    assert told.state.pending == plain.state.pending
    told.restart()
    assert all(one.model_refused is msgspec.UNSET for one in told.state.predictions())


def test_series_that_ended_are_forgotten_with_their_rollups_and_the_others_predict_as_before() -> None:
    driven = Driven("24h", horizon_ms=2 * DAY)
    for day in range(12):
        driven.tell(rollup(1, 5 + day, day=FIRST + day))
        if day < 2:
            driven.tell(rollup(1, 5, campaign_id="autumn", day=FIRST + day))
        driven.tell(at(closes(day)))
        driven.take()
    assert driven.state.ctr.predictor.keys == [("spring", "meta")]
    before = driven.state.ctr.predictor.to_bytes()
    driven.restart()
    assert driven.state.ctr.predictor.to_bytes() == before


def test_a_year_without_rows_is_as_long_as_ten() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5), rollup(1, 6, day=FIRST + 3_650), at(closes(3_650)))
    learned(driven)
    assert driven.state.ctr.predictor.last_day == FIRST + 3_650


def test_a_state_of_other_hypotheses_is_given_up_and_said_so() -> None:
    driven = Driven("24h")
    driven.tell(*history())
    driven.drain()
    profile = driven.config.profile
    fewer = {platform: bands for platform, bands in profile.platforms.items() if platform is not Platform.TIKTOK}
    driven.config = msgspec.structs.replace(driven.config, profile=msgspec.structs.replace(profile, platforms=fewer))
    driven.restart()
    assert "other platforms" in driven.state.ctr.forgotten
    assert driven.state.ctr.predictor.last_day is None
