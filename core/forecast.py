"""Rolling CTR predictions of a batch of campaigns: for each window of the configuration, the one that comes next.

A label's window is the first that begins neither before the end of the campaign's newest one nor before the end of the
last day that was learned. Features end where it begins: what was learned of closed days, and the counts of the open
ones. Expected impressions are those of a day's length in the last ``DAYS`` days with a report, as far as they were
reported, times the window's length.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from math import ceil
from typing import Final, NamedTuple

import numpy as np

from core.campaign import Campaign
from core.ctr_stream import CtrStream
from core.learning.online import Forecast
from core.learning.predictive import Floats
from core.normalizer import confidence, consistency_score
from core.profile import Profile
from core.window import HOURS_A_DAY, Window
from schemas.calendar import end_of_day, iso_date, iso_instant
from schemas.event import DAY_MS, HOUR_MS
from schemas.metrics import CLICKS, IMPRESSIONS
from schemas.prediction import CtrInputs, CtrPrediction, CtrRate
from schemas.rollup import Rollup, Totals

MODEL: Final = "empirical-bayes-2"
"""What predicts where no model serves."""
DAYS: Final = 7
LEAST_COVERED: Final = 1 / HOURS_A_DAY


class Label(NamedTuple):
    """A window to predict: its ordinal, its start, and where the features end."""

    ordinal: int
    start_ms: int
    feature_end_ms: int


class Shown(NamedTuple):
    """What a campaign had shown on a platform before a label's window: in the open days, and in the last ``DAYS`` and
    how much of these was reported, in days.
    """

    impressions: int
    clicks: int
    recent: int
    recent_clicks: int
    covered: float


NOTHING: Final = Shown(0, 0, 0, 0, LEAST_COVERED)


class Row(NamedTuple):
    """A campaign of the batch: its labels and what was shown before them, one for each window, and its platforms."""

    campaign: Campaign
    labels: list[Label | None]
    shown: list[dict[str, Shown]]
    platforms: list[str]


class Table(NamedTuple):
    """The last days' impressions and clicks, and the expected impressions, [r, h] each."""

    impressions: Floats
    clicks: Floats
    expected: Floats


def forecast(
    campaigns: Sequence[Campaign], windows: Sequence[Window], profile: Profile, learned: CtrStream
) -> list[CtrPrediction]:
    """Predictions of each window that the campaigns have any of, by window, in one call."""
    rows = [row for campaign in campaigns if (row := _row(campaign, windows, learned)).platforms]
    if not rows:
        return []
    keys = [(row.campaign.campaign_id, platform) for row in rows for platform in row.platforms]
    table = np.array(
        [[shown.get(platform, NOTHING) for shown in row.shown] for row in rows for platform in row.platforms],
        dtype=np.float64,
    )
    spans = np.array([window.span_ms / DAY_MS for window in windows])
    expected = table[:, :, 2] / table[:, :, 4] * spans
    ahead = [window.days / 2 for window in windows]
    found = learned.predictor.forecast(keys, table[:, :, 0], table[:, :, 1], expected, ahead)
    numbers = Table(table[:, :, 2], table[:, :, 3], expected)
    return _Writer(windows, profile, learned, found, numbers).written(rows)


def _row(campaign: Campaign, windows: Sequence[Window], learned: CtrStream) -> Row:
    labels: list[Label | None] = []
    shown: list[dict[str, Shown]] = []
    of_days: tuple[Label, dict[str, Shown]] | None = None
    for window in windows:
        latest = campaign.latest(window)
        if latest is None:
            labels.append(None)
            shown.append({})
        elif not window.days:
            label = _hour(campaign, window, latest, learned.learned_until_ms)
            labels.append(label)
            shown.append(_shown(campaign, latest // HOURS_A_DAY + 1, label.feature_end_ms, learned))
        else:
            if of_days is None:
                label = _day(campaign, window, latest, learned.learned_until_ms)
                of_days = label, _shown(campaign, latest, label.feature_end_ms, learned)
            labels.append(of_days[0]._replace(ordinal=of_days[0].ordinal + window.days - 1))
            shown.append(of_days[1])
    return Row(campaign, labels, shown, sorted({platform for of_window in shown for platform in of_window}))


def _hour(campaign: Campaign, window: Window, latest: int, learned_until_ms: int) -> Label:
    first = max(latest + 1, ceil(learned_until_ms / HOUR_MS))
    return Label(first, first * HOUR_MS, max(campaign.end_ms(window, latest), learned_until_ms))


def _day(campaign: Campaign, window: Window, latest: int, learned_until_ms: int) -> Label:
    """The first day of a window to predict."""
    first, start_ms = latest + 1, campaign.end_ms(window, latest)
    feature_end_ms = max(start_ms, learned_until_ms)
    if start_ms < learned_until_ms:
        zones = {rollup.zone for rollup in campaign.by_day.get(latest, {}).values() if not rollup.withdrawn}
        first = max(first, learned_until_ms // DAY_MS - 1)
        while (start_ms := max(end_of_day(first - 1, zone) for zone in zones)) < learned_until_ms:
            first += 1
    return Label(first, start_ms, feature_end_ms)


def _shown(campaign: Campaign, newest: int, feature_end_ms: int, learned: CtrStream) -> dict[str, Shown]:
    last = learned.predictor.last_day
    last = newest - DAYS if last is None else last
    sums: dict[str, list[float]] = {}
    for day in range(newest, newest - DAYS, -1):
        covered: dict[str, float] = {}
        for rollup in campaign.by_day.get(day, {}).values():
            platform = str(rollup.platform)
            if rollup.day_totals is None or platform not in learned.platforms:
                continue
            own = sums.setdefault(platform, [0, 0, 0, 0, 0.0])
            for totals in _before(feature_end_ms, rollup):
                impressions, clicks = totals.values[IMPRESSIONS] or 0, totals.values[CLICKS] or 0
                own[2] += impressions
                own[3] += clicks
                if day > last:
                    own[0] += impressions
                    own[1] += clicks
            part = (min(rollup.covered_ms, feature_end_ms) - rollup.start_ms) / DAY_MS
            covered[platform] = max(covered.get(platform, 0.0), min(part, 1.0))
        for platform, part in covered.items():
            sums[platform][4] += part
    return {
        platform: Shown(int(own[0]), int(own[1]), int(own[2]), int(own[3]), max(own[4], LEAST_COVERED))
        for platform, own in sums.items()
    }


def _before(instant_ms: int, rollup: Rollup) -> Sequence[Totals]:
    """What a day had reported before an instant: all of it or, where it reaches further, its hours until then."""
    if rollup.day_totals is None:
        return ()
    if rollup.covered_ms <= instant_ms:
        return (rollup.day_totals,)
    return [totals for hour, totals in rollup.hours if (hour + 1) * HOUR_MS <= instant_ms]


class _Writer:
    """Writes a forecast down."""

    def __init__(
        self, windows: Sequence[Window], profile: Profile, learned: CtrStream, found: Forecast, table: Table
    ) -> None:
        self._windows, self._learned, self._source = windows, learned, found.source
        self._bands = {str(platform): bands.ctr for platform, bands in profile.platforms.items()}
        self._fitted = dict(zip(learned.platforms, learned.predictor.fitted(), strict=True))
        # Few long lists: a hundred thousand short ones would wake the garbage collector.
        numbers = (found.rate, found.low, found.high, table.expected, table.impressions, table.clicks)
        self._numbers = [one.ravel().tolist() for one in numbers]
        self._whole = [one.ravel().tolist() for one in (found.campaign_rate, found.campaign_low, found.campaign_high)]
        self._instants: dict[int, str] = {}
        until = learned.learned_until_ms
        self._learned_to = None if until < 0 else iso_instant(until)

    def written(self, rows: Sequence[Row]) -> list[CtrPrediction]:
        """Predictions by window, in the batch's order."""
        firsts = [0, *accumulate(len(row.platforms) for row in rows)]
        return [
            self._prediction(row, label, number, firsts[at], at * len(self._windows) + number)
            for number in range(len(self._windows))
            for at, row in enumerate(rows)
            if (label := row.labels[number]) is not None
        ]

    def _prediction(self, row: Row, label: Label, number: int, first: int, whole: int) -> CtrPrediction:
        window, campaign_id, shown = self._windows[number], row.campaign.campaign_id, row.shown[number]
        platforms, places, used = {}, [], []
        impressions = clicks = expected = strength = prior = half_life = 0.0
        source = "prior"
        for at, platform in enumerate(row.platforms, start=first):
            if platform not in shown:
                continue
            rate = platforms[platform] = self._rate(at, number, platform)
            told, fitted, band = rate.inputs, self._fitted[platform], self._bands[platform]
            impressions += told.impressions
            clicks += told.clicks
            weight = told.expected_impressions
            expected += weight
            strength += told.prior_strength
            prior += weight * told.prior_rate
            half_life += weight * fitted["half_life"]
            places.append(min(max((rate.rate - band.low) / (band.high - band.low), 0.0), 1.0))
            if rate.source != "prior":
                used.append(platform)
                source = rate.source if source != "model" else source
        if not expected:
            prior = sum(rate.inputs.prior_rate for rate in platforms.values()) / len(platforms)
            half_life = sum(self._fitted[platform]["half_life"] for platform in platforms) / len(platforms)
        start = self._start(window, label)
        identity = f"{campaign_id}\0{window.name}\0{start}\0ctr"
        return CtrPrediction(
            prediction_id=blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
            campaign_id=campaign_id,
            window=window.name,
            feature_end=self._instant(label.feature_end_ms),
            label_start=self._instant(label.start_ms),
            label_end=self._instant(label.start_ms + window.span_ms),
            label_window_start=start,
            revision=row.campaign.position + 1,
            model=self._learned.model_id if source == "model" else MODEL,
            half_life_days=half_life / (expected or 1.0),
            rate=self._whole[0][whole],
            low=self._whole[1][whole],
            high=self._whole[2][whole],
            source=source,
            inputs=CtrInputs(
                impressions=impressions,
                clicks=clicks,
                prior_rate=prior / (expected or 1.0),
                prior_strength=strength,
                expected_impressions=expected,
            ),
            platforms=platforms,
            platforms_used=used,
            confidence=confidence(impressions),
            consistency=consistency_score(places),
            learned_to=self._learned_to,
        )

    def _instant(self, instant_ms: int) -> str:
        text = self._instants.get(instant_ms)
        if text is None:
            text = self._instants[instant_ms] = iso_instant(instant_ms)
        return text

    def _start(self, window: Window, label: Label) -> str:
        """As in ``bounds``."""
        if not window.days:
            return self._instant(label.start_ms)
        return iso_date(label.ordinal - window.days + 1)

    def _rate(self, at: int, number: int, platform: str) -> CtrRate:
        place = at * len(self._windows) + number
        rate, low, high, expected, impressions, clicks = [one[place] for one in self._numbers]
        fitted = self._fitted[platform]
        return CtrRate(
            rate=rate,
            low=low,
            high=high,
            source=self._source[at],
            inputs=CtrInputs(
                impressions=impressions,
                clicks=clicks,
                prior_rate=fitted["rate"],
                prior_strength=fitted["strength"],
                expected_impressions=expected,
            ),
        )
