"""When the windows of a campaign's day are to be looked at, because one of them is final."""

import heapq
from collections.abc import Iterator


class Closing:
    """Days of campaigns by the time at which the first of their windows is final."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str, int]] = []
        self._watched: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, campaign_id: str, day: int, final_ms: int) -> None:
        """Look at a day's windows at a time, unless an earlier one is set."""
        held = self._watched.get((campaign_id, day))
        if held is None or final_ms < held:
            self._watched[campaign_id, day] = final_ms
            heapq.heappush(self._heap, (final_ms, campaign_id, day))

    def passed(self, watermark_ms: int) -> Iterator[tuple[str, int]]:
        """The days that a watermark has passed. They are not watched any more."""
        while self._heap and self._heap[0][0] <= watermark_ms:
            final_ms, campaign_id, day = heapq.heappop(self._heap)
            if self._watched.get((campaign_id, day)) == final_ms:
                del self._watched[campaign_id, day]
                yield campaign_id, day
