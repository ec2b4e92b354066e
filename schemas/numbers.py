"""Numbers as report rows write them: JSON numbers, or decimal strings. Money never passes through binary floats.

Absent is not zero: null, an empty string and TikTok's ``-`` all mean that a row does not carry the metric.
"""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal
from math import isfinite
from typing import Final

from schemas.event import RejectCode
from schemas.metrics import MAX_COUNT, MAX_MICROS, MICROS
from schemas.refusal import Refused, show

MICRO: Final = Decimal("0.000001")
EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[])
PLAIN_DECIMAL: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
NOT_NUMBERS: Final = frozenset({"nan", "inf", "infinity"})
LONGEST: Final = 64
MAX_UNITS: Final = Decimal(MAX_MICROS) / MICROS
POINTS: Final = 100


def count(value: object, field: str, *, most: int = MAX_COUNT) -> int | None:
    """A whole number from 0 to ``most``. Raises ``Refused``."""
    if type(value) is int:
        number = value
    elif type(value) is str and len(value) < 19 and value.isascii() and value.isdigit():
        number = int(value)
    else:
        decimal = _decimal(value, field)
        if decimal is None:
            return None
        if decimal < 0:
            raise _negative(value, field)
        if decimal > most:
            raise _out_of_range(value, field, most)
        if decimal != decimal.to_integral_value(context=EXACT):
            raise Refused(RejectCode.WRONG_TYPE, f"{field} must be a whole number, not {show(value)}")
        number = int(decimal)
    if number < 0:
        raise _negative(value, field)
    if number > most:
        raise _out_of_range(value, field, most)
    return number


def micros(value: object, field: str) -> int | None:
    """Units of money or conversions as micros, rounded half to even. Raises ``Refused``."""
    if type(value) is int and 0 <= value <= MAX_MICROS // MICROS:
        return value * MICROS
    decimal = _decimal(value, field)
    if decimal is None:
        return None
    if decimal < 0:
        raise _negative(value, field)
    if decimal > MAX_UNITS:
        raise _out_of_range(value, field, int(MAX_UNITS))
    return int(decimal.quantize(MICRO, context=EXACT).scaleb(6, context=EXACT))


def quality(signal: float | None, impressions: int | None) -> tuple[int | None, int | None]:
    """``(quality_points, quality_impressions)`` of a signal from 1 to 10; both None where there is nothing to weigh."""
    if signal is None or not impressions:
        return None, None
    return round(signal * POINTS) * impressions, impressions


def _decimal(value: object, field: str) -> Decimal | None:
    if value is None:
        return None
    if type(value) is int:
        return Decimal(value)
    if type(value) is float:
        if not isfinite(value):
            raise Refused(RejectCode.NOT_A_NUMBER, f"{field} is {show(value)}, which is not a number")
        return Decimal(repr(value))
    if type(value) is not str:
        raise Refused(RejectCode.WRONG_TYPE, f"{field} must be a number, not {show(value)}")
    text = value.strip()
    if text in ("", "-"):
        return None
    if len(text) <= LONGEST and PLAIN_DECIMAL.fullmatch(text):
        return Decimal(text)
    if text.lstrip("+-").lower() in NOT_NUMBERS:
        raise Refused(RejectCode.NOT_A_NUMBER, f"{field} is {show(value)}, which is not a number")
    raise Refused(RejectCode.WRONG_TYPE, f"{field} must be a number, not {show(value)}")


def _negative(value: object, field: str) -> Refused:
    return Refused(RejectCode.NEGATIVE, f"{field} must not be negative, but is {show(value)}")


def _out_of_range(value: object, field: str, most: int) -> Refused:
    return Refused(RejectCode.OUT_OF_RANGE, f"{field} must be at most {most:.0e}, but is {show(value)}")
