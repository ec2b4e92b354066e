"""The additive metrics of a cell, in the one order that every table, envelope and rollup uses.

All are non-negative int64. Money and conversions are in micros (1e-6 of a currency unit, or of a conversion).
A quality signal is kept as two additive numbers, so that its impression-weighted mean needs no float:
``quality_points`` is the signal (1.00 to 10.00, in hundredths) times the impressions that carry it, and
``quality_impressions`` those impressions. ``None`` says that a row does not carry the metric, which is not zero.
"""

from typing import Final

METRICS: Final = (
    "impressions",
    "clicks",
    "link_clicks",
    "spend_micros",
    "conversions_micros",
    "revenue_micros",
    "engagements",
    "video_views",
    "quality_points",
    "quality_impressions",
)
WIDTH: Final = len(METRICS)
(
    IMPRESSIONS,
    CLICKS,
    LINK_CLICKS,
    SPEND,
    CONVERSIONS,
    REVENUE,
    ENGAGEMENTS,
    VIDEO_VIEWS,
    QUALITY_POINTS,
    QUALITY_IMPRESSIONS,
) = range(WIDTH)

MICROS: Final = 1_000_000
MAX_COUNT: Final = 10**12
MAX_MICROS: Final = 10**16

Values = tuple[int | None, ...]
"""One row's metrics, ``WIDTH`` long, in the order of ``METRICS``."""
