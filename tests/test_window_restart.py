"""A restart reads the keys of a campaigns table and decodes what it must; campaigns go back on the shelf."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b

import msgspec
import pytest

from core import stored
from core.campaigns import Campaigns
from core.published import Published
from core.window import WindowKey
from schemas.insight import Correction
from tests.driven import FIRST, Driven, at, rollup, seen
from tests.histories import DAY, HOUR, T0


class Table(Mapping[bytes, bytes]):
    """A table that counts which values are asked for."""

    def __init__(self, held: dict[bytes, bytes]) -> None:
        self.held = held
        self.asked: list[bytes] = []

    def __getitem__(self, key: bytes) -> bytes:
        self.asked.append(key)
        return self.held[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


def settled(*kinds: str, campaigns: int = 3, days: int = 4, **config: int) -> Driven:
    """Some campaigns' first days, of which all has been published."""
    driven = Driven(*(kinds or ("24h", "7d")), **config)
    for day in range(days):
        driven.tell(*(rollup(1, 5 + day, campaign_id=str(name), day=FIRST + day) for name in range(campaigns)))
    driven.tell(at(T0 + 2 * DAY))
    driven.drain()
    driven.tell(at(T0 + 2 * DAY))
    driven.drain()
    return driven


def unreadable(table: dict[bytes, bytes], campaign_id: str) -> dict[bytes, bytes]:
    """The table with values of a campaign of which only the beginning can be read."""
    own = {key for key in table if stored.parse_key(key)[1] == campaign_id}
    prefix = {key: 17 if stored.parse_key(key)[0] == stored.WINDOWS else 9 for key in own}
    return {key: value[: prefix[key]] + b"\xc1" if key in own else value for key, value in table.items()}


def test_a_restart_decodes_no_campaign_and_the_first_touch_decodes_one() -> None:
    driven = settled()
    driven.table = unreadable(unreadable(driven.table, "1"), "2")
    driven.restart()
    driven.tell(rollup(2, 9, campaign_id="0"))
    assert seen(driven.drain()) == [("0", "corrected", 9)]
    with pytest.raises(stored.Unreadable, match="holds a rollup that cannot be read"):
        driven.tell(rollup(2, 9, campaign_id="1"))


def test_a_touch_decodes_the_days_that_it_needs() -> None:
    driven = settled("24h", days=60, campaigns=1)
    table = Table(driven.table)
    state = Campaigns.restore(table, driven.config)
    campaign = state.campaign("0")
    assert campaign
    assert campaign.latest(driven.config.windows[0]) == FIRST + 59
    table.asked.clear()
    assert [part.rollup.day for part in campaign.parts(driven.config.windows[0], FIRST + 30)] == [FIRST + 30]
    assert len(table.asked) == 1


def test_a_preliminary_window_of_a_campaign_that_is_not_decoded_becomes_final_in_time() -> None:
    driven = settled()
    driven.restart()
    driven.tell(at(T0 + 2 * DAY + HOUR - 1))
    assert driven.drain() == []
    assert driven.state.sizes()["decoded"] == 0
    driven.tell(at(T0 + 2 * DAY + HOUR))
    assert sorted(seen(driven.drain())) == [(name, "final", 6) for name in "012"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_window_that_ends_earlier_than_it_did_becomes_final_then(restarts: bool) -> None:
    """Scenario: the account whose date ends last is moved away. It had reported nothing, so nothing is published."""
    driven = Driven("24h")
    west = rollup(1, None, platform_campaign_id="2", zone="America/Los_Angeles")
    driven.tell(rollup(1, 5), west)
    driven.drain()
    driven.tell(rollup(2, None, platform_campaign_id="2", withdrawn=True, zone="", basis="", covered_ms=0))
    assert driven.drain() == []
    if restarts:
        driven.restart()
    driven.tell(at(T0 + DAY + HOUR))
    assert seen(driven.drain()) == [("spring", "final", 5)]


def test_a_window_that_ends_later_than_it_did_becomes_final_then() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5))
    driven.drain()
    driven.tell(rollup(1, None, platform_campaign_id="2", zone="America/Los_Angeles"))
    driven.drain()
    driven.restart()
    driven.tell(at(T0 + DAY + 9 * HOUR - 1))
    assert driven.drain() == []
    driven.tell(at(T0 + DAY + 9 * HOUR))
    assert seen(driven.drain()) == [("spring", "final", 5)]


def test_campaigns_beyond_the_limit_are_put_back_when_the_table_holds_them() -> None:
    driven = Driven("24h", decoded=2)
    driven.tell(*(rollup(1, 5, campaign_id=str(name)) for name in range(9)))
    driven.take()
    assert driven.state.sizes()["decoded"] == 9, "their bytes may not be in the table yet"
    driven.tell(rollup(2, 6, campaign_id="8"))
    driven.take()
    assert driven.state.sizes()["decoded"] == 2
    driven.tell(*(rollup(3, 7, campaign_id=str(name)) for name in range(9)))
    assert seen(driven.take().emissions) == [(str(name), "preliminary", 7) for name in range(9)]


def test_nothing_differs_when_campaigns_are_put_back_all_the_time() -> None:
    driven, eager = Driven("24h", "7d", decoded=1), Driven("24h", "7d")
    for step in range(40):
        news = rollup(step + 1, step, campaign_id=str(step * 7 % 5), day=FIRST + step * 3 % 4)
        for each in (driven, eager):
            each.tell(news)
        assert driven.take() == eager.take()


@pytest.mark.parametrize("kind", ["rollup/meta", "windows"])
@pytest.mark.parametrize("value", [b"", b"\x02", b"\x92"])
def test_values_of_another_version_are_refused(kind: str, value: bytes) -> None:
    driven = settled()
    key = next(key for key in driven.table if stored.parse_key(key)[0] == kind)
    driven.table[key] = value + driven.table[key][1:] if value else b""
    with pytest.raises(ValueError, match=rf"value of version (none|2|146) under .*{kind}.*version 1 is known here"):
        driven.restart()


PUBLISHED = Published(
    phase=2,
    revision=70_001,
    digest=blake2b(b"content", digest_size=16).digest(),
    totals={"clicks": 5, "spend_micros:USD": 12_345_678},
    members=["meta:12021"],
    sequence=7,
    correction=Correction(reason="restatement", difference={"clicks": -1}),
    as_of="2026-03-08T10:00:00.000Z",
)
GROUP = {
    WindowKey("24h", 20_519): PUBLISHED,
    WindowKey("7d", 20_519): msgspec.structs.replace(PUBLISHED, phase=0, correction=None, sequence=6, final_ms=T0),
}
GROUP_BYTES = (
    "0100000000000000070000019cc59804009293a3323468cd50279902ce00011171c410c681ff421fbd7af6dc373a7ced20fb"
    "eb82a6636c69636b7305b07370656e645f6d6963726f733a555344ce00bc614e91aa6d6574613a31323032310782a6726561"
    "736f6eab726573746174656d656e74aa646966666572656e636581a6636c69636b73ffb8323032362d30332d30385431303a"
    "30303a30302e3030305a0093a23764cd50279900ce00011171c410c681ff421fbd7af6dc373a7ced20fbeb82a6636c69636b"
    "7305b07370656e645f6d6963726f733a555344ce00bc614e91aa6d6574613a313230323106c0b8323032362d30332d303854"
    "31303a30303a30302e3030305acf0000019cc5980400"
)
"""As it was before ``maturity``, which is told since."""
MATURED_BYTES = (
    "0100000000000000070000019cc59804009293a3323468cd50279a02ce00011171c410c681ff421fbd7af6dc373a7ced20fb"
    "eb82a6636c69636b7305b07370656e645f6d6963726f733a555344ce00bc614e91aa6d6574613a31323032310782a6726561"
    "736f6eab726573746174656d656e74aa646966666572656e636581a6636c69636b73ffb8323032362d30332d30385431303a"
    "30303a30302e3030305a0081a46d657461cb3fe800000000000093a23764cd50279a00ce00011171c410c681ff421fbd7af6"
    "dc373a7ced20fbeb82a6636c69636b7305b07370656e645f6d6963726f733a555344ce00bc614e91aa6d6574613a31323032"
    "3106c0b8323032362d30332d30385431303a30303a30302e3030305acf0000019cc598040081a46d657461cb3fe800000000"
    "0000"
)


def test_version_1_of_stored_values_is_for_ever() -> None:
    matured = {key: msgspec.structs.replace(last, maturity={"meta": 0.75}) for key, last in GROUP.items()}
    assert stored.pack_windows(matured).hex() == MATURED_BYTES
    assert stored.unpack_windows(bytes.fromhex(MATURED_BYTES)) == matured
    assert stored.unpack_windows(bytes.fromhex(GROUP_BYTES)) == GROUP
    assert stored.closes_ms(bytes.fromhex(GROUP_BYTES)) == T0
    assert stored.number(bytes.fromhex(GROUP_BYTES)) == 7
    assert stored.pack_rollup(258, b"rollup").hex() == "010000000000000102726f6c6c7570"
    assert stored.pack_again(258, b"{}", changed=True).hex() == "010000000000000102017b7d"
    assert stored.windows_key("spring", 20_519).hex() == "94a777696e646f7773a6737072696e67a0cd5027"
    assert stored.rate_key("EUR", 20_519).hex() == "94a472617465a3455552a0cd5027"
    assert stored.rollup_key(rollup(1, 5)).hex() == "94ab726f6c6c75702f6d657461a6737072696e67a131cd5027"
