"""Rolling CTR predictions of a batch of campaigns: for each window of the configuration, the one that comes next
(``core.forecast_counts``).

Expected impressions are those of a day's length in the last days with a report, as far as they were reported, times
the window's length.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.campaign import Campaign
from core.ctr_stream import CtrStream
from core.forecast_counts import Counts, Label, batch
from core.learning.decayed import Ints
from core.learning.online import Forecast
from core.learning.predictive import Floats
from core.normalizer import LEAST_COMPARED, confidences, consistency_of
from core.profile import Profile
from core.window import Window
from schemas.calendar import iso_date, iso_instant
from schemas.event import DAY_MS
from schemas.prediction import CtrInputs, CtrPrediction, CtrRate

MODEL: Final = "empirical-bayes-2"
"""What predicts where no model serves."""


class Rows(NamedTuple):
    """A row for each platform of each campaign that was shown on it before any label: its campaign's place among
    ``campaigns``, which have a row; and for each window what was shown on the last days, what is expected, and whether
    the row is part of that prediction, [r, h] each.
    """

    campaigns: list[Campaign]
    owner: Ints
    impressions: Floats
    clicks: Floats
    expected: Floats
    present: NDArray[np.bool_]


def forecast(
    campaigns: Sequence[Campaign], windows: Sequence[Window], profile: Profile, learned: CtrStream
) -> list[CtrPrediction]:
    """Predictions of each window that the campaigns have any of, by window, in one call."""
    found = batch(campaigns, windows, learned)
    counts = [found.counts[window.days > 0] for window in windows]
    cells = np.flatnonzero(np.any([one.present for one in counts], axis=0)) if counts else np.zeros(0, dtype=np.int64)
    if not cells.size:
        return []
    places, owner = np.unique(cells // len(learned.platforms), return_inverse=True)
    platform = cells % len(learned.platforms)
    of_cells = Counts(*(np.stack(columns, axis=1)[cells] for columns in zip(*counts, strict=True)))
    spans = np.array([window.span_ms / DAY_MS for window in windows])
    expected = of_cells.recent / of_cells.covered * spans
    chosen = [campaigns[at] for at in places.tolist()]
    rows = Rows(chosen, owner, of_cells.recent, of_cells.recent_clicks, expected, of_cells.present)
    names = [learned.platforms[at] for at in platform.tolist()]
    keys = [(chosen[at].campaign_id, name) for at, name in zip(owner.tolist(), names, strict=True)]
    ahead = [window.days / 2 for window in windows]
    told = learned.predictor.forecast(keys, of_cells.impressions, of_cells.clicks, expected, ahead)
    labels = [[found.labels[window.days > 0][at] for at in places.tolist()] for window in windows]
    return _Writer(profile, learned, told, rows, platform, names).written(windows, labels)


class _Texts(NamedTuple):
    """A label as it is written, and its part in the prediction's id."""

    feature_end: str
    start: str
    end: str
    window_start: str
    identity: str


_Whole: TypeAlias = tuple[CtrInputs, float, float, float, float, float, float | None]
"""Of a campaign: inputs, rate, low, high, half-life in days, confidence and consistency."""


class _Writer:
    """Writes a forecast down. ``platform`` is each row's place among the platforms, ``names`` its name."""

    def __init__(
        self, profile: Profile, learned: CtrStream, told: Forecast, rows: Rows, platform: Ints, names: list[str]
    ) -> None:
        self._learned, self._told, self._rows, self._names = learned, told, rows, names
        self._firsts = [0, *accumulate(np.bincount(rows.owner).tolist())]
        fitted = learned.predictor.fitted()
        self._prior, self._strength, self._half_life = (
            np.array([one[name] for one in fitted])[platform] for name in ("rate", "strength", "half_life")
        )
        bands = {str(each): benchmarks.ctr for each, benchmarks in profile.platforms.items()}
        low = np.array([bands[name].low for name in learned.platforms])[platform, None]
        high = np.array([bands[name].high for name in learned.platforms])[platform, None]
        self._places = np.clip((told.rate - low) / (high - low), 0.0, 1.0)
        self._told_of = [self._sources(range(*ends)) for ends in pairwise(self._firsts)]
        until = learned.learned_until_ms
        self._learned_to = None if until < 0 else iso_instant(until)

    def written(self, windows: Sequence[Window], labels: Sequence[Sequence[Label | None]]) -> list[CtrPrediction]:
        """Predictions by window, in the batch's order."""
        found: list[CtrPrediction] = []
        for number, (window, own) in enumerate(zip(windows, labels, strict=True)):
            found += self._window(window, number, own)
        return found

    def _window(self, window: Window, number: int, labels: Sequence[Label | None]) -> list[CtrPrediction]:
        rates, present = self._rates(number), self._rows.present[:, number].tolist()
        whole, everywhere, names, firsts = self._whole(number), all(present), self._names, self._firsts
        learned_to, refused = self._learned_to, self._learned.model_refused or msgspec.UNSET
        texts: dict[Label, _Texts] = {}
        found = []
        for at, (campaign, label, values) in enumerate(zip(self._rows.campaigns, labels, whole, strict=True)):
            first, end = firsts[at], firsts[at + 1]
            if label is None or not (everywhere or any(present[first:end])):
                continue
            platforms, (used, source, model) = (
                dict(zip(names[first:end], rates[first:end], strict=True)),
                self._told_of[at],
            )
            if not (everywhere or all(present[first:end])):
                own = [row for row in range(first, end) if present[row]]
                platforms, (used, source, model) = {names[row]: rates[row] for row in own}, self._sources(own)
            text = texts.get(label)
            if text is None:
                text = texts[label] = _texts(window, label)
            identity = f"{campaign.campaign_id}\0{text.identity}"
            inputs, rate, low, high, half_life, sure, consistency = values
            found.append(
                CtrPrediction(
                    prediction_id=blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
                    campaign_id=campaign.campaign_id,
                    window=window.name,
                    feature_end=text.feature_end,
                    label_start=text.start,
                    label_end=text.end,
                    label_window_start=text.window_start,
                    revision=campaign.position + 1,
                    model=model,
                    half_life_days=half_life,
                    rate=rate,
                    low=low,
                    high=high,
                    source=source,
                    inputs=inputs,
                    platforms=platforms,
                    platforms_used=used,
                    confidence=sure,
                    consistency=consistency,
                    learned_to=learned_to,
                    model_refused=refused,
                )
            )
        return found

    def _sources(self, rows: Sequence[int]) -> tuple[list[str], str, str]:
        """Of a campaign's rows: the platforms that were used, where the campaign's rate comes from, and the model."""
        sources = self._told.source
        used = [self._names[row] for row in rows if sources[row] != "prior"]
        source = _source({sources[row] for row in rows})
        return used, source, self._learned.model_id if source == "model" else MODEL

    def _rates(self, number: int) -> list[CtrRate]:
        """Each row's rate in a window."""
        told, rows = self._told, self._rows
        columns = (told.rate, told.low, told.high, rows.impressions, rows.clicks, rows.expected)
        # Lists of a window: one of numpy's numbers at a time would cost more than all the rest.
        numbers = zip(*(column[:, number].tolist() for column in columns), strict=True)
        fitted = zip(told.source, self._prior.tolist(), self._strength.tolist(), strict=True)
        return [
            CtrRate(
                rate=rate,
                low=low,
                high=high,
                source=source,
                inputs=CtrInputs(
                    impressions=impressions,
                    clicks=clicks,
                    prior_rate=prior_rate,
                    prior_strength=strength,
                    expected_impressions=expected,
                ),
            )
            for (rate, low, high, impressions, clicks, expected), (source, prior_rate, strength) in zip(
                numbers, fitted, strict=True
            )
        ]

    def _whole(self, number: int) -> Iterator[_Whole]:
        """Of each campaign in a window, what its rows tell together. The priors of its platforms are mixed by expected
        impressions and, where none are, equally.
        """
        told, rows, present = self._told, self._rows, self._rows.present[:, number]
        weight, places = rows.expected[:, number], self._places[:, number] * present
        impressions, clicks, expected, strength, platforms, prior, half_life, priors, half_lives, place = (
            np.bincount(rows.owner, weights=values)
            for values in (
                *(rows.impressions[:, number], rows.clicks[:, number], weight, present * self._strength, present),
                *(weight * self._prior, weight * self._half_life, present * self._prior, present * self._half_life),
                places,
            )
        )
        some, among = expected > 0, np.maximum(platforms, 1.0)
        prior, half_life = (
            np.where(some, mixed / np.where(some, expected, 1.0), equal / among)
            for mixed, equal in ((prior, priors), (half_life, half_lives))
        )
        strayed = present * (self._places[:, number] - (place / among)[rows.owner]) ** 2
        consistent = consistency_of(np.bincount(rows.owner, weights=strayed) / among).tolist()
        lone = (platforms < LEAST_COMPARED).tolist()
        rates = (told.campaign_rate, told.campaign_low, told.campaign_high)
        return zip(
            [
                CtrInputs(impressions=i, clicks=c, prior_rate=p, prior_strength=s, expected_impressions=e)
                for i, c, p, s, e in zip(
                    *(one.tolist() for one in (impressions, clicks, prior, strength, expected)), strict=True
                )
            ],
            *(one[:, number].tolist() for one in rates),
            half_life.tolist(),
            confidences(impressions.astype(np.float64)).tolist(),
            [None if alone else score for alone, score in zip(lone, consistent, strict=True)],
            strict=True,
        )


def _texts(window: Window, label: Label) -> _Texts:
    start = iso_instant(label.start_ms)
    window_start = iso_date(label.first) if window.days else start
    end = iso_instant(label.start_ms + window.span_ms)
    return _Texts(iso_instant(label.feature_end_ms), start, end, window_start, f"{window.name}\0{window_start}\0ctr")


def _source(sources: set[str]) -> str:
    if "model" in sources:
        return "model"
    return "empirical_bayes" if "empirical_bayes" in sources else "prior"
