"""Benchmarks that learn: streaming quantiles of each ratio by platform and vertical, and the profile they make.

The sketches are t-digests (Dunning, Software Impacts 7, 2021; Apache DataSketches), mergeable in any order up to
their error. A learned profile replaces the default one by choice alone: it is data that ``load_profile`` takes.
"""

from hashlib import sha256
from math import isfinite
from typing import Any, Final

import msgspec

from core.profile import DEFAULT_PROFILE, Band, Benchmarks, Profile
from core.ratios import COMPONENTS, PlatformMetrics, ratios_of_metrics
from schemas.platform import Platform

COMPRESSION: Final = 200
LOW: Final = 0.05
IDEAL: Final = 0.5
HIGH: Final = 0.95
MIN_IMPRESSIONS: Final = 1_000
MIN_SAMPLES: Final = 100
FORMAT: Final = 1
DIGITS: Final = 6


class _Sketch(msgspec.Struct, frozen=True, array_like=True):
    platform: Platform
    vertical: str
    component: str
    digest: bytes


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    format: int
    currency: str
    min_impressions: int
    checksum: bytes
    sketches: list[_Sketch]


class BenchmarkLearner:
    """Quantile sketches of the ratios in ``COMPONENTS``, costs in ``currency``.

    A row below ``min_impressions`` is not taken: its ratios are mostly chance.
    """

    def __init__(self, currency: str = "USD", min_impressions: int = MIN_IMPRESSIONS) -> None:
        self.currency = currency
        self.min_impressions = min_impressions
        self._digests: dict[tuple[Platform, str, str], Any] = {}

    def update(self, metrics: PlatformMetrics, vertical: str = "") -> bool:
        """Take one campaign's or day's metrics, into its platform's and its vertical's sketches; whether it was taken.

        A ratio that is undefined or in another currency is left out.
        """
        if metrics.platform == Platform.UNKNOWN or (metrics.impressions or 0) < self.min_impressions:
            return False
        for component, ratio in zip(COMPONENTS, ratios_of_metrics(metrics, self.currency), strict=True):
            if not isinstance(ratio, str) and isfinite(ratio):
                for scope in {"", vertical}:
                    self._digest(metrics.platform, scope, component).update(ratio)
        return True

    def merge(self, other: "BenchmarkLearner") -> None:
        """Take what another has seen. Raises ``ValueError`` where currency or least impressions differ."""
        if (self.currency, self.min_impressions) != (other.currency, other.min_impressions):
            raise ValueError("only benchmarks of one currency and one least number of impressions can be merged")
        for key, digest in sorted(other._digests.items()):
            self._digest(*key).merge(digest)

    def samples(self, platform: Platform, component: str, vertical: str = "") -> int:
        """How many values a sketch has seen."""
        digest = self._digests.get((platform, vertical, component))
        return 0 if digest is None else int(digest.get_total_weight())

    def quantile(self, platform: Platform, component: str, rank: float, vertical: str = "") -> float | None:
        """The value at a rank from 0 to 1; ``None`` where nothing was seen."""
        if not self.samples(platform, component, vertical):
            return None
        return float(self._digests[platform, vertical, component].get_quantile(rank))

    def profile(
        self,
        version: str = "",
        vertical: str = "",
        base: Profile = DEFAULT_PROFILE,
        min_samples: int = MIN_SAMPLES,
    ) -> Profile:
        """The base profile with each band that enough has been seen of replaced: the 5 % to the 95 % quantile, ideal
        the median where the base has an ideal. A vertical falls back on its platform, then on the base.

        ``version``: by default the base's with a digest of the bands. Raises ``ValueError`` where currencies differ.
        """
        if base.currency != self.currency:
            raise ValueError(f"the base profile is in {base.currency}, what was learned in {self.currency}")
        platforms = {
            platform: Benchmarks(
                ctr=self._band(platform, vertical, "ctr", own.ctr, min_samples),
                cpc=self._band(platform, vertical, "cpc", own.cpc, min_samples),
                cpm=self._band(platform, vertical, "cpm", own.cpm, min_samples),
                engagement=self._band(platform, vertical, "engagement", own.engagement, min_samples),
                quality=None
                if own.quality is None
                else self._band(platform, vertical, "quality", own.quality, min_samples),
                maturity=own.maturity,
            )
            for platform, own in base.platforms.items()
        }
        content = sha256(msgspec.json.encode(platforms, order="deterministic")).hexdigest()
        return Profile(version or f"{base.version}+learned.{content[:12]}", platforms, base.currency)

    def to_bytes(self) -> bytes:
        """The sketches as bytes."""
        sketches = [_Sketch(*key, bytes(digest.serialize())) for key, digest in sorted(self._digests.items())]
        checksum = sha256(b"".join(sketch.digest for sketch in sketches)).digest()
        return msgspec.msgpack.encode(_Saved(FORMAT, self.currency, self.min_impressions, checksum, sketches))

    @classmethod
    def from_bytes(cls, data: bytes) -> "BenchmarkLearner":
        """Sketches from their bytes. Raises ``ValueError`` that says what is wrong."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
        except msgspec.DecodeError as error:
            raise ValueError(f"not learned benchmarks: {error}") from error
        if saved.format != FORMAT:
            raise ValueError(f"learned benchmarks of format {saved.format} are not known")
        if sha256(b"".join(sketch.digest for sketch in saved.sketches)).digest() != saved.checksum:
            raise ValueError("learned benchmarks: the checksum does not hold")
        learner = cls(saved.currency, saved.min_impressions)
        for sketch in saved.sketches:
            digest = _digests().deserialize(sketch.digest)
            learner._digests[sketch.platform, sketch.vertical, sketch.component] = digest
        return learner

    def _digest(self, platform: Platform, vertical: str, component: str) -> Any:
        key = (platform, vertical, component)
        if key not in self._digests:
            self._digests[key] = _digests()(COMPRESSION)
        return self._digests[key]

    def _band(self, platform: Platform, vertical: str, component: str, base: Band, min_samples: int) -> Band:
        scope = vertical if self.samples(platform, component, vertical) >= min_samples else ""
        if self.samples(platform, component, scope) < min_samples:
            return base
        low, ideal, high = (
            float(f"{self._digests[platform, scope, component].get_quantile(rank):.{DIGITS}g}")
            for rank in (LOW, IDEAL, HIGH)
        )
        if not low < high or (component == "ctr" and not (0 < ideal < 1 and high <= 1)):
            return base
        return Band(low, high, None if base.ideal is None else min(max(ideal, low), high))


def _digests() -> Any:
    import datasketches  # only who learns benchmarks pays for its import

    return datasketches.tdigest_double
