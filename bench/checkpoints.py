"""Checkpoints of the insights stage over dirty campaigns, with predictions and without, in turn and in one process.

Every round brings one hour more of the last day from every platform of every campaign, and takes a checkpoint of it as
a worker does, up to the records and the Redis entries that are ready to be sent. Without predictions it is the same
with a forecast that returns nothing.
"""

import gc
import time
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import msgspec
import numpy as np

from core.campaigns import Campaigns, InsightConfig
from core.learning.ctr_model import CtrFeatures, CtrModel, CtrModelConfig, CtrTrainer
from core.learning.promotion import Standing
from core.window import HOURS_A_DAY
from schemas import prediction
from schemas import rollup as rollup_codec
from schemas import topics as names
from schemas.event import DAY_MS, HOUR_MS
from schemas.metrics import CLICKS, CONVERSIONS, ENGAGEMENTS, IMPRESSIONS, WIDTH
from schemas.platform import Platform
from schemas.rollup import Money, Rollup, Totals, Watermark
from stream_app.hot_store import HotStore
from stream_app.hot_writer import HotWriter
from stream_app.insight_stage import InsightStage
from stream_app.settings import Settings
from stream_app.worker import COLLECTED_AFTER

PLATFORMS: Final = (Platform.GOOGLE_ADS, Platform.META, Platform.TIKTOK)
FIRST: Final = 20_500
RATE: Final = 0.03
HOURLY: Final = 12.0


class Cost(msgspec.Struct, frozen=True):
    """CPU milliseconds of a checkpoint with predictions and without, a pair a round, and what one published:
    ``modelled`` of the predictions came from a trained model.
    """

    with_predictions: list[float]
    without: list[float]
    insights: int
    predictions: int
    modelled: int

    @property
    def ratio(self) -> float:
        """What predictions add, as a share of the checkpoint without: the median over the pairs."""
        return median(self._ratios())

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the pairs' shares."""
        low, high = np.quantile(self._ratios(), (0.25, 0.75)).tolist()
        return low, high

    def _ratios(self) -> list[float]:
        return [both / alone - 1 for both, alone in zip(self.with_predictions, self.without, strict=True)]


def totals(impressions: int, clicks: int) -> Totals:
    """Counts and money of a part of a day."""
    values: list[int | None] = [None] * WIDTH
    values[IMPRESSIONS], values[CLICKS], values[ENGAGEMENTS] = impressions, clicks, impressions // 10
    values[CONVERSIONS] = clicks * 100_000
    return Totals(tuple(values), (Money("USD", clicks * 400_000, clicks * 900_000),))


class DirtyCheckpoints:
    """A partition of campaigns on three platforms with ``days`` of daily rollups, of which all that are closed are
    learned. With ``tier`` a trained model serves every platform, whatever its standing.
    """

    def __init__(self, campaigns: int, days: int, *, tier: bool) -> None:
        settings, self._random = Settings(partitions=1), np.random.default_rng(0)
        model = _trained(self._random) if tier else None
        hot = HotWriter(HotStore.of(settings))
        config = InsightConfig(emit_interval_ms=0)
        nothing: Any = None
        self._stage = InsightStage(settings, config, nothing, nothing, lambda: nothing, hot, lambda: model)
        self._table: dict[bytes, bytes] = {}
        self._state = Campaigns.restore(self._table, config)
        self._owners = [(f"cmp-{at:05d}", platform) for at in range(campaigns) for platform in PLATFORMS]
        self._hours: list[list[tuple[int, Totals]]] = [[] for _ in self._owners]
        self._offset, self._hour = 0, (FIRST + days) * HOURS_A_DAY
        for day in range(FIRST, FIRST + days):
            self._tell(Watermark(partition=0, watermark_ms=day * DAY_MS))
            shown, clicks = self._counts(HOURS_A_DAY * HOURLY)
            for owner, *counts in zip(self._owners, shown, clicks, strict=True):
                self._tell(self._rollup(owner, day, totals(*counts), (), (day + 1) * DAY_MS))
            self._take()
        while self._state.ctr.waiting:
            self._take()
        if tier:
            walk = self._state.ctr.predictor._walk
            walk.standings = [Standing(promoted=True, reason="set by the benchmark") for _ in walk.standings]
        self._round()

    def cost(self, rounds: int) -> Cost:
        """Pairs of checkpoints, each kind first in every other pair."""
        both, alone, before = [], [], gc.get_threshold()
        gc.set_threshold(*COLLECTED_AFTER)
        try:
            for at in range(rounds):
                for predicting in (at % 2 == 0, at % 2 == 1):
                    if predicting:
                        both.append(self._round())
                        told = self._told
                    else:
                        with patch("core.campaigns.forecast", lambda *_: []):
                            alone.append(self._round())
        finally:
            gc.set_threshold(*before)
        return Cost(both, alone, *told)

    def _round(self) -> float:
        """One hour more of every platform campaign, and a checkpoint; its CPU milliseconds."""
        if self._hour % HOURS_A_DAY == 0:
            self._hours = [[] for _ in self._owners]
        shown, clicks = self._counts(HOURLY)
        for owner, hours, *counts in zip(self._owners, self._hours, shown, clicks, strict=True):
            hours.append((self._hour, totals(*counts)))
            day = totals(*(sum(one.values[at] or 0 for _, one in hours) for at in (IMPRESSIONS, CLICKS)))
            until = (self._hour + 1) * HOUR_MS
            self._tell(self._rollup(owner, self._hour // HOURS_A_DAY, day, tuple(hours), until))
        self._hour += 1
        return self._take()

    def _take(self) -> float:
        """A checkpoint as a worker takes it, up to the sending; its CPU milliseconds.

        The collector's pass over new objects takes a tenth of a second and falls on one checkpoint in four, whatever is
        predicted: it is made before.
        """
        gc.collect(0)
        begun = time.process_time()
        work = self._stage._take(0, self._state)
        if work is None:
            return 0.0
        work.then()
        taken = 1_000 * (time.process_time() - begun)
        insights = sum(record.topic == names.INSIGHTS for record in work.outputs)
        told = [prediction.decode(record.value or b"") for record in work.outputs if record.topic == names.PREDICTIONS]
        self._told = insights, len(told), sum(one.source == "model" for one in told)
        for key, value in work.writes:
            if value is None:
                self._table.pop(key, None)
            else:
                self._table[key] = value
        return taken

    def _counts(self, impressions: float) -> tuple[list[int], list[int]]:
        shown = self._random.poisson(impressions, len(self._owners))
        return shown.tolist(), self._random.binomial(shown, RATE).tolist()

    def _rollup(
        self,
        owner: tuple[str, Platform],
        day: int,
        of_day: Totals,
        hours: tuple[tuple[int, Totals], ...],
        covered_ms: int,
    ) -> Rollup:
        campaign_id, platform = owner
        return Rollup(
            campaign_id=campaign_id,
            platform=platform,
            platform_campaign_id=f"1202{campaign_id}",
            account_id="77",
            day=day,
            revision=self._offset + 1,
            day_totals=of_day,
            hours=hours,
            start_ms=day * DAY_MS,
            zone="UTC",
            covered_ms=covered_ms,
            as_of_ms=covered_ms,
            basis="snapshot",
        )

    def _tell(self, message: Rollup | Watermark) -> None:
        self._state.apply(self._offset, rollup_codec.encode(message))
        self._offset += 1


def _trained(random: np.random.Generator) -> CtrModel:
    """A model of as many trees as the stream's, of series whose rates differ."""
    series, features = np.arange(500), CtrFeatures(500)
    trainer = CtrTrainer(CtrModelConfig(least_clicks=1.0, least_child_weight=1.0))
    default, rate = np.full(series.size, RATE), RATE * random.gamma(4.0, 0.25, series.size)
    for day in range(30):
        matrix = features.of(series, default, np.full(series.size, 40.0))
        shown = random.poisson(HOURS_A_DAY * HOURLY, series.size).astype(np.float64)
        clicks = random.binomial(shown.astype(np.int64), rate).astype(np.float64)
        trainer.add(day, matrix, shown, clicks, default)
        features.advance(series, shown, clicks)
    model = trainer.train(30)
    if model is None:
        raise RuntimeError("too few clicks to train a model of")
    return model
