"""Daily counts drawn from rates that are known."""

import numpy as np
from numpy.typing import NDArray

from core.learning.backtest import History, history

Floats = NDArray[np.float64]


class Planted:
    """``rate`` and the drawn ``impressions`` and ``clicks``, each [windows, series]; ``platform`` of each series."""

    def __init__(
        self,
        seed: int = 0,
        windows: int = 90,
        series: int = 40,
        volume: float = 300.0,
        spread: float = 0.5,
        wander: float = 0.0,
        base: dict[str, float] | None = None,
    ) -> None:
        random = np.random.default_rng(seed)
        self.base = base or {"google_ads": 0.04}
        names = sorted(self.base)
        self.platform = [names[at % len(names)] for at in range(series)]
        self.campaign = np.arange(series)
        start = np.log([self.base[name] for name in self.platform]) + spread * random.standard_normal(series)
        steps = wander * random.standard_normal((windows, series))
        steps[0] = 0.0
        self.rate: Floats = np.minimum(np.exp(start + np.cumsum(steps, axis=0)), 0.5)
        scale = np.exp(random.standard_normal(series))
        self.impressions: Floats = random.poisson(volume * scale, size=(windows, series)).astype(np.float64)
        self.clicks: Floats = random.binomial(self.impressions.astype(np.int64), self.rate).astype(np.float64)

    def history(self, clicks: Floats | None = None, until: int | None = None) -> History:
        """The rows of the windows before ``until``, with other clicks where some are given."""
        shown = self.impressions[:until]
        clicked = (self.clicks if clicks is None else clicks)[:until]
        windows, series = np.nonzero(shown >= 0)
        keys = [(self.platform[at], f"s{at:03d}") for at in series.tolist()]
        return history(windows, keys, shown[windows, series], clicked[windows, series], self.base)
