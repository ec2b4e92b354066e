"""Exchange rates: how much one unit of a currency was worth on a date.

Wire: JSON on ``ads.rates``, keyed ``currency:date``; a ``rate`` of null, or a record without a value, says that there
is none. The rate with the highest ``updated_at`` holds; equal ones are settled by their content.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Final, Literal

import msgspec

from schemas.currency import CODES
from schemas.dates import LATEST_MS, day_of
from schemas.event import Ignored, IgnoreReason, RejectCode, Rejection
from schemas.numbers import LONGEST, PLAIN_DECIMAL
from schemas.refusal import Refused, show
from schemas.rollup import RateFact

NANOS: Final = 1_000_000_000
MAX_UNITS: Final = 1_000_000
NANO: Final = Decimal("1e-9")
EXACT: Final = Context(prec=100, rounding=ROUND_HALF_EVEN, traps=[])

Code = Annotated[str, msgspec.Meta(min_length=3, max_length=3, pattern="^[A-Z]{3}$", description="ISO 4217.")]
Date = Annotated[str, msgspec.Meta(min_length=10, max_length=10, description="YYYY-MM-DD, 2000 to 2099.")]
Amount = Annotated[
    str | int | float | None,
    msgspec.Meta(description="Units of `per`, above 0 to a million, rounded to nine places; null withdraws."),
]


class ExchangeRate(msgspec.Struct, frozen=True, kw_only=True):
    """Version 1 of the wire contract: one unit of ``currency`` is ``rate`` units of ``per``.

    ``updated_at`` is in epoch milliseconds; without it the record's arrival counts.
    """

    version: Literal[1]
    date: Date
    currency: Code
    per: Code
    rate: Amount
    updated_at: Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)] | None = None


_decoder: Final = msgspec.json.Decoder(ExchangeRate)


def decode_rate(
    key: bytes | None, payload: bytes | None, *, arrival_ms: int, max_bytes: int
) -> RateFact | Rejection | Ignored:
    """A rate record's fact. Total: any bytes give an outcome."""
    if payload is None:
        currency, _, date = (key or b"").decode("utf-8", "replace").partition(":")
        try:
            return rate_fact(date, currency, "", None, arrival_ms)
        except ValueError:
            return Ignored(IgnoreReason.TOMBSTONE)
    if len(payload) > max_bytes:
        return Rejection(RejectCode.OVERSIZE, f"the rate has {len(payload)} bytes; at most {max_bytes} are taken")
    try:
        wire = _decoder.decode(payload)
        updated = arrival_ms if wire.updated_at is None else wire.updated_at
        return rate_fact(wire.date, wire.currency, wire.per, wire.rate, updated)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        return Rejection(RejectCode.BAD_RATE, f"not an exchange rate: {str(error)[:160]}")


def rate_fact(date: str, currency: str, per: str, rate: str | float | None, updated_ms: int) -> RateFact:
    """The fact of a rate as people write it. Raises ``ValueError`` that says what is wrong with it.

    >>> rate_fact("2026-01-03", "EUR", "USD", "1.0831", 0).nanos
    1083100000
    """
    try:
        day = day_of(date, "date")
    except Refused as refused:
        raise ValueError(str(refused)) from None
    if day is None:
        raise ValueError("date is missing")
    withdrawn = rate is None
    for field, code in (("currency", currency), ("per", per)):
        if code not in CODES and not (withdrawn and field == "per" and not code):
            raise ValueError(f"{field} {show(code)} is no ISO 4217 code")
    if currency == per:
        raise ValueError(f"a rate of {currency} in itself says nothing")
    return RateFact(
        currency=currency, day=day, per=per, nanos=0 if rate is None else _nanos(rate), updated_ms=updated_ms
    )


def _nanos(rate: str | float) -> int:
    text = rate.strip() if isinstance(rate, str) else repr(rate)
    if len(text) > LONGEST or not PLAIN_DECIMAL.fullmatch(text):
        raise ValueError(f"rate must be a decimal number, not {show(rate)}")
    units = Decimal(text)
    nanos = int(units.quantize(NANO, context=EXACT).scaleb(9, context=EXACT)) if 0 < units <= MAX_UNITS else 0
    if not nanos:
        raise ValueError(f"rate must lie above 0 and at most at {MAX_UNITS:,}, but is {show(rate)}")
    return nanos
