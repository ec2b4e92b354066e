"""Scorecards of CTR predictions: what one partition's closed days showed of what had been predicted.

Wire: msgpack on ``scorecards.ctr``, compacted, the newest of a partition under its number as text. ``card`` are the
bytes of a mergeable scorecard (``core.learning.scorecard``), a sum over all days from the first to the last: that of
the forecasts of a day. ``others`` holds those of other horizons, by name: ``1h`` and ``7d``, once they have any.
"""

from typing import Final

import msgspec

VERSION: Final = 1
HOUR: Final = "1h"
DAY: Final = "1d"
WEEK: Final = "7d"
HORIZONS: Final = (HOUR, DAY, WEEK)
"""How far ahead forecasts reach that are scored."""


class LearnedScorecard(msgspec.Struct, frozen=True, array_like=True, tag="scorecard", kw_only=True):
    """Days count from 1970-01-01. ``standings`` maps a platform to whether the model serves it, and why; ``model`` is
    the id of the one that is judged, empty without one.
    """

    version: int = VERSION
    first_day: int
    last_day: int
    model: str
    standings: dict[str, tuple[bool, str]]
    card: bytes
    others: dict[str, bytes] = {}

    def of(self, horizon: str) -> bytes | None:
        """The card of a horizon, None where nothing of it was scored."""
        return self.card if horizon == DAY else self.others.get(horizon)


encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(LearnedScorecard)


def decode(payload: bytes) -> LearnedScorecard:
    """The scorecard of its bytes. Raises ``ValueError`` for another version or none at all."""
    try:
        found = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a scorecard: {error}") from error
    if found.version != VERSION:
        raise ValueError(f"scorecard version {found.version} is not known here; version {VERSION} is")
    return found
