"""What one input row becomes: a metric event, a stated reason to ignore it, or a rejection."""

from enum import StrEnum
from typing import Final

import msgspec

from schemas.metrics import Values
from schemas.platform import Platform

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000


class Kind(StrEnum):
    """Whether a row restates a period (last pull wins) or adds to it (each event id counts once)."""

    SNAPSHOT = "snapshot"
    DELTA = "delta"


class Grain(StrEnum):
    """The period that a snapshot covers."""

    DAY = "day"
    HOUR = "hour"


class MetricEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of one platform campaign.

    ``day`` counts the account's own calendar dates from 1970-01-01. ``start_ms`` is the instant at which the
    period began, in UTC milliseconds, through ``zone`` (an IANA name) or through UTC where ``zone`` is empty, which
    says that it was assumed. ``observed_ms`` is when the row was pulled or, for a delta, when it happened.
    ``report`` names the connector's stream: rows of two streams never supersede one another.
    """

    kind: Kind
    platform: Platform
    account_id: str
    campaign_id: str
    ad_group_id: str
    ad_id: str
    report: str
    segments: tuple[tuple[str, str], ...]
    grain: Grain
    day: int
    start_ms: int
    zone: str
    observed_ms: int
    event_id: str
    currency: str
    values: Values


class Ignored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A sound row that has no place in the state, such as an account's total."""

    reason: "IgnoreReason"


class Rejection(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row that cannot be used. ``sentence`` tells a person what to mend, and never repeats a secret."""

    code: "RejectCode"
    sentence: str


class IgnoreReason(StrEnum):
    """Why a sound row does not enter the state."""

    ACCOUNT_LEVEL = "account_level"
    NO_CAMPAIGN = "no_campaign"
    NO_METRICS = "no_metrics"
    NO_PERIOD = "no_period"
    MULTI_DAY_PERIOD = "multi_day_period"
    EMPTY_REPORT = "empty_report"
    TOMBSTONE = "tombstone"
    CONTROL_MESSAGE = "control_message"


class RejectCode(StrEnum):
    """The taxonomy of dead letters. README documents each code; none is ever reused for another meaning."""

    EMPTY = "empty"
    OVERSIZE = "oversize"
    NOT_UTF8 = "not_utf8"
    MALFORMED_JSON = "malformed_json"
    TOO_DEEP = "too_deep"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_SHAPE = "unknown_shape"
    UNKNOWN_PLATFORM = "unknown_platform"
    UNSUPPORTED_VERSION = "unsupported_version"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_A_NUMBER = "not_a_number"
    NEGATIVE = "negative"
    OUT_OF_RANGE = "out_of_range"
    BAD_TIME = "bad_time"
    BAD_PERIOD = "bad_period"
    BAD_ID = "bad_id"
    TOO_LATE = "too_late"
    IN_THE_FUTURE = "in_the_future"
    PLATFORM_ERROR = "platform_error"
    BAD_LINK = "bad_link"
    BAD_RATE = "bad_rate"
    BAD_ACCOUNT = "bad_account"
    OUTPUT_TOO_LARGE = "output_too_large"
    BAD_CREATIVE = "bad_creative"


Outcome = MetricEvent | Ignored | Rejection
