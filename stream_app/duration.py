"""Lengths of time as people write them in settings: ``250ms``, ``90s``, ``15m``, ``1h``, ``100d``."""

import re
from typing import Any, Final

import msgspec
from pydantic_core import core_schema

MILLISECONDS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST_MS: Final = 10 * 366 * MILLISECONDS["d"]
_FORM: Final = re.compile(r"([0-9]{1,12})\s*(ms|s|m|h|d)")


class Duration(msgspec.Struct, frozen=True, order=True):
    """A whole number of milliseconds above zero, ten years at most."""

    ms: int

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """The duration that a text names. Raises ``ValueError`` with a sentence that shows the form."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError("a duration is a whole number and a unit of ms, s, m, h or d, such as 250ms or 24h")
        ms = int(match[1]) * MILLISECONDS[match[2]]
        if not 0 < ms <= LONGEST_MS:
            raise ValueError("a duration is longer than 0 and at most ten years")
        return cls(ms)

    @property
    def seconds(self) -> float:
        """The same length in seconds."""
        return self.ms / 1_000

    def __str__(self) -> str:
        unit = next(unit for unit in ("d", "h", "m", "s", "ms") if self.ms % MILLISECONDS[unit] == 0)
        return f"{self.ms // MILLISECONDS[unit]}{unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> core_schema.CoreSchema:
        """A duration or its text, in settings models."""

        def validate(value: Any) -> "Duration":
            if isinstance(value, Duration):
                return value
            if not isinstance(value, str):
                raise ValueError("a duration is written as text, such as 250ms or 24h")  # noqa: TRY004 pydantic's own
            return cls.parse(value)

        return core_schema.no_info_plain_validator_function(validate, serialization=core_schema.to_string_ser_schema())
