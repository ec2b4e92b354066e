"""Predictions of a batch, to the last bit but for consistency, against a computation campaign by campaign."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.campaign import Campaign
from core.campaigns import Campaigns
from core.normalizer import confidence, consistency_score
from core.profile import DEFAULT_PROFILE, Profile
from core.window import Window
from schemas import prediction as prediction_codec
from schemas.calendar import end_of_day, iso_date, iso_instant
from schemas.metrics import CLICKS, IMPRESSIONS
from schemas.platform import Platform
from schemas.prediction import CtrInputs, CtrPrediction, CtrRate
from schemas.rollup import Rollup
from tests.driven import FIRST, Driven, at, rollup, totals, withdrawn
from tests.histories import DAY, HOUR, T0

ZONES = ("", "America/Los_Angeles", "Pacific/Auckland", "Asia/Kolkata")
WITHOUT_TIKTOK = msgspec.structs.replace(
    DEFAULT_PROFILE,
    platforms={name: bands for name, bands in DEFAULT_PROFILE.platforms.items() if name is not Platform.TIKTOK},
)
Span = tuple[int, int, int, int]
"""First ordinal, start, end of features, last day of features."""


def span(campaign: Campaign, window: Window, learned_until: int) -> Span | None:
    newest = campaign.latest(window)
    if newest is None:
        return None
    ordinal = newest + 1
    if not window.days:
        while ordinal * HOUR < learned_until:
            ordinal += 1
        return ordinal, ordinal * HOUR, max((newest + 1) * HOUR, learned_until), newest // 24 + 1
    zones = [one.zone for one in campaign.by_day.get(newest, {}).values() if not one.withdrawn]
    ends = max(end_of_day(newest, zone) for zone in zones)
    while max(end_of_day(ordinal - 1, zone) for zone in zones) < learned_until:
        ordinal += 1
    return ordinal, max(end_of_day(ordinal - 1, zone) for zone in zones), max(ends, learned_until), newest


def before(end: int, one: Rollup) -> tuple[int, int]:
    assert one.day_totals is not None
    parts = [one.day_totals] if one.covered_ms <= end else [own for hour, own in one.hours if hour * HOUR + HOUR <= end]
    return sum(own.values[IMPRESSIONS] or 0 for own in parts), sum(own.values[CLICKS] or 0 for own in parts)


def shown(campaign: Campaign, platform: str, told: Span, last_learned: int | None) -> list[float] | None:
    """Impressions and clicks of open days, of the last days, and how many days of these were reported."""
    _, _, end, newest = told
    sums, found = [0.0] * 5, False
    for day in range(newest, newest - 7, -1):
        own = [one for one in campaign.by_day.get(day, {}).values() if one.platform == platform and one.day_totals]
        found = found or bool(own)
        for one in own:
            counts = before(end, one)
            for place, count in enumerate(counts):
                sums[2 + place] += count
                sums[place] += count if last_learned is None or day > last_learned else 0
        sums[4] += max((max(0.0, min(1.0, (min(one.covered_ms, end) - one.start_ms) / DAY)) for one in own), default=0)
    return [*sums[:4], max(sums[4], 1 / 24)] if found else None


def predicted(
    state: Campaigns, campaign: Campaign, windows: tuple[Window, ...], profile: Profile
) -> list[CtrPrediction]:
    ctr = state.ctr
    last = ctr.predictor.last_day
    until = -1 if last is None else (last + 1) * DAY + 12 * HOUR
    spans = [span(campaign, window, until) for window in windows]
    counts = [
        {name: own for name in ctr.platforms if told and (own := shown(campaign, name, told, last))} for told in spans
    ]
    names = [name for name in ctr.platforms if any(name in own for own in counts)]
    if not names:
        return []
    table = np.array([[own.get(name, [0, 0, 0, 0, 1.0]) for own in counts] for name in names])
    days = [window.days or 1 / 24 for window in windows]
    expected = table[:, :, 2] / table[:, :, 4] * days
    keys = [(campaign.campaign_id, name) for name in names]
    middles = [window.days / 2 for window in windows]
    told = ctr.predictor.forecast(keys, table[:, :, 0], table[:, :, 1], expected, middles)
    fitted = dict(zip(ctr.platforms, ctr.predictor.fitted(), strict=True))
    found = []
    for number, (window, of_window, seen) in enumerate(zip(windows, spans, counts, strict=True)):
        if of_window is None or not seen:
            continue
        first, start, end, _ = of_window
        rates = {
            name: CtrRate(
                rate=float(told.rate[row, number]),
                low=float(told.low[row, number]),
                high=float(told.high[row, number]),
                source=told.source[row],
                inputs=CtrInputs(
                    impressions=seen[name][2],
                    clicks=seen[name][3],
                    prior_rate=fitted[name]["rate"],
                    prior_strength=fitted[name]["strength"],
                    expected_impressions=float(expected[row, number]),
                ),
            )
            for row, name in enumerate(names)
            if name in seen
        }
        parts = [rate.inputs for rate in rates.values()]
        whole = sum(part.expected_impressions for part in parts)
        shares = [part.expected_impressions if whole else 1.0 for part in parts]
        half_lives = [fitted[name]["half_life"] for name in rates]
        bands = [profile.platforms[Platform(name)].ctr for name in rates]
        sources = [rate.source for rate in rates.values()]
        impressions = sum(part.impressions for part in parts)
        places = [
            min(1.0, max(0.0, (rate.rate - band.low) / (band.high - band.low)))
            for rate, band in zip(rates.values(), bands, strict=True)
        ]
        begin = iso_date(first) if window.days else iso_instant(start)
        source = next((one for one in ("model", "empirical_bayes") if one in sources), "prior")
        fields: dict[str, Any] = {
            "prediction_id": "",
            "campaign_id": campaign.campaign_id,
            "window": window.name,
            "feature_end": iso_instant(end),
            "label_start": iso_instant(start),
            "label_end": iso_instant(start + window.span_ms),
            "label_window_start": begin,
            "revision": campaign.position + 1,
            "model": "empirical-bayes-2",
            "half_life_days": sum(s * h for s, h in zip(shares, half_lives, strict=True)) / sum(shares),
            "rate": float(told.campaign_rate[0, number]),
            "low": float(told.campaign_low[0, number]),
            "high": float(told.campaign_high[0, number]),
            "source": source,
            "inputs": CtrInputs(
                impressions=impressions,
                clicks=sum(part.clicks for part in parts),
                prior_rate=sum(s * part.prior_rate for s, part in zip(shares, parts, strict=True)) / sum(shares),
                prior_strength=sum(part.prior_strength for part in parts),
                expected_impressions=whole,
            ),
            "platforms": rates,
            "platforms_used": [name for name, rate in rates.items() if rate.source != "prior"],
            "confidence": confidence(impressions),
            "consistency": consistency_score(places),
            "learned_to": None if last is None else iso_instant(until),
        }
        found.append(CtrPrediction(**fields))
    return found


@st.composite
def reports(draw: st.DrawFn) -> Rollup:
    """A day of some campaign, whole or in part, with hours or without."""
    day, zone = FIRST + draw(st.integers(0, 11)), draw(st.sampled_from(ZONES))
    owner: dict[str, Any] = {
        "campaign_id": draw(st.sampled_from("abc")),
        "platform": draw(st.sampled_from((Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS))),
        "platform_campaign_id": draw(st.sampled_from(("1", "1", "2"))),
        "day": day,
    }
    revision = draw(st.integers(1, 9))
    if draw(st.integers(0, 9)) == 0:
        return withdrawn(revision, **owner)
    start = end_of_day(day - 1, zone)
    reported = draw(st.integers(0, 25))
    clicks, impressions = draw(st.integers(0, 40)), draw(st.sampled_from((None, 0, 40, 900)))
    of_hours = draw(st.lists(st.integers(0, reported), max_size=3, unique=True))
    found = rollup(revision, 1, **owner, zone=zone, start_ms=start, covered_ms=start + reported * HOUR)
    hours = tuple((start // HOUR + hour, totals(hour, 9 * hour)) for hour in sorted(of_hours))
    return msgspec.structs.replace(found, day_totals=totals(clicks, impressions), hours=hours)


def restated(report: Rollup) -> Rollup:
    """The same day with other counts."""
    counts = None if report.withdrawn else totals(3, 77)
    return msgspec.structs.replace(report, revision=10, day_totals=counts)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(reports(), min_size=1, max_size=25),
    st.sampled_from((None, -1, 3, 8, 20)),
    st.sampled_from((("1h", "24h", "7d"), ("7d", "1h"), ("24h",), ("1h",))),
    st.sampled_from((DEFAULT_PROFILE, WITHOUT_TIKTOK)),
)
def test_a_batch_is_what_each_campaign_gives_alone(
    told: list[Rollup], closed: int | None, kinds: tuple[str, ...], profile: Profile
) -> None:
    driven = Driven(*kinds, profile=profile)
    driven.tell(*told)
    if closed is not None:
        driven.state.predictions()
        driven.tell(at(T0 + (closed + 1) * DAY + 18 * HOUR), *map(restated, told[::3]))
    found = driven.state.predictions()
    windows = driven.config.windows
    campaigns = [campaign for name in "abc" if (campaign := driven.state.campaign(name)) is not None]
    expected = [one for each in campaigns for one in predicted(driven.state, each, windows, profile)]
    order = [window.name for window in windows]
    expected.sort(key=lambda one: order.index(one.window))
    # A batch adds up in another order.
    alone = [one.consistency for one in expected]
    near = [None if one is None else pytest.approx(one, rel=1e-13) for one in alone]
    assert [one.consistency for one in found] == near
    plain = [
        msgspec.structs.replace(one, prediction_id="", consistency=consistency)
        for one, consistency in zip(found, alone, strict=True)
    ]
    assert list(map(prediction_codec.encode, plain)) == list(map(prediction_codec.encode, expected))
    assert len({one.prediction_id for one in found}) == len(found)


def test_a_window_without_a_platform_that_is_known_is_not_predicted() -> None:
    """Scenario: a platform without benchmarks reports the last hour, a day after the others' last report in reach."""
    driven = Driven("1h", "24h", profile=WITHOUT_TIKTOK)
    last = rollup(1, 5, platform=Platform.TIKTOK, day=FIRST + 6, hours={30: 5})
    driven.tell(rollup(1, 5), last)
    assert [one.window for one in driven.state.predictions()] == ["24h"]


def test_the_id_of_a_prediction_is_for_ever() -> None:
    driven = Driven("1h", "24h", "7d")
    driven.tell(rollup(1, 5, hours={3: 5}))
    assert {one.window: one.prediction_id for one in driven.state.predictions()} == {
        "1h": "d93d8131b1aa3c8cef12d805673bb8a6",
        "24h": "0fca83c1618fb47dee9d46edffc71771",
        "7d": "8d5b46ba6e57577595f9fee77b4a13b2",
    }


def test_an_hour_that_reaches_beyond_its_day_is_no_feature() -> None:
    """Scenario: a day ends at half past an hour, and is reported beyond its end."""
    driven = Driven("24h")
    start = end_of_day(FIRST - 1, "Asia/Kolkata")
    driven.tell(rollup(1, 12, zone="Asia/Kolkata", start_ms=start, covered_ms=start + 25 * HOUR, hours={17: 5, 18: 7}))
    (found,) = driven.state.predictions()
    assert (found.label_start, found.inputs.clicks) == ("2026-03-07T18:30:00.000Z", 5)
