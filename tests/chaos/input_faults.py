"""What comes in, or is no longer there: poison, records at the size limit and beyond, retention ahead of workers."""

import json
import time
from functools import partial
from typing import Any, Final

from confluent_kafka import Producer, TopicPartition

from stream_app.topics import name
from tests.chaos.chapters import META, POISON_KEY, Sent, day_of, poison, start_of, sums
from tests.chaos.trial import Fault, Trial

DOOMED: Final = 400
BOMB_BYTES: Final = 6_000_000
ANSWER_S: Final = 10.0


def _event(campaign: str, number: int) -> dict[str, Any]:
    return {
        "version": 1,
        "kind": "delta",
        "event_id": f"{campaign}.{number}",
        "platform": "meta",
        "campaign_id": campaign,
        "period_start": start_of(0),
        "currency": "USD",
        **sums(number, number + 1),
    }


def _taken(error: Any, _message: Any) -> None:
    assert error is None, f"the broker did not take a record: {error}"


class Poison(Fault):
    """All that nobody can use, many times over, amid good rows."""

    name = "poison"
    allowed_exits = 0

    def inject(self, trial: Trial) -> None:
        unique = f"{trial.app.settings.topic_prefix}{trial.rng.randrange(1 << 40):x}"
        for turn in range(200 if trial.long else 30):
            if turn % 10 == 0:
                trial.strike()
            codes = poison(f"{unique}.{turn}")
            trial.rng.shuffle(codes)
            trial.app.stream.publish(
                Sent(META, f"{POISON_KEY}|{code}|{unique}.{turn}.{place}".encode(), value)
                for place, (code, value) in enumerate(codes)
            )


class Oversize(Fault):
    """Records of the limit less one byte, the limit, and the limit and one byte."""

    name = "oversize"
    allowed_exits = 0

    def inject(self, trial: Trial) -> None:
        limit = trial.app.settings.max_payload_bytes
        campaign = f"{trial.app.settings.topic_prefix}{trial.rng.randrange(1 << 40):x}.oversize"
        turns = 50 if trial.long else 10
        for turn in range(turns):
            trial.strike()
            records = []
            for place, size in enumerate((limit - 1, limit, limit + 1)):
                event = json.dumps(_event(campaign, 2 * turn + place)).encode()
                padded = event[:-1] + b', "note": "' + b"x" * (size - len(event) - 12) + b'"}'
                assert len(padded) == size
                key = campaign if size <= limit else f"{POISON_KEY}|oversize|{campaign}.{turn}"
                records.append(Sent(META, key.encode(), padded))
            trial.app.stream.publish(records)
        trial.app.stream.extra[f"meta:{campaign}", day_of(0)] = sums(0, 2 * turns)


class Bomb(Fault):
    """Records that are small as they are sent and large when they are unpacked: larger than any topic takes."""

    name = "compressed bomb"
    allowed_exits = 0

    def inject(self, trial: Trial) -> None:
        app = trial.app
        producer = Producer(
            app.settings.confluent_config()
            | {"compression.type": "gzip", "message.max.bytes": 2 * BOMB_BYTES, "log_level": 0}
        )
        for turn in range(3):
            trial.strike()
            key = f"{POISON_KEY}|oversize|bomb.{trial.rng.randrange(1 << 40):x}.{turn}".encode()
            producer.produce(name(app.settings, META), b"[" * BOMB_BYTES, key, on_delivery=_taken)
            assert producer.flush(ANSWER_S) == 0


class RetentionPassed(Fault):
    """While no worker runs, records are deleted that no worker has read. How many is said exactly."""

    name = "retention passed"
    allowed_exits = 0

    def __init__(self) -> None:
        self._gap: tuple[str, int] = ("", 0)

    def inject(self, trial: Trial) -> None:
        app, stream = trial.app, trial.app.stream
        stream.stop()
        app.drain()
        app.reader.catch_up()
        workers = app.supervisor.wanted
        for worker in workers:
            app.supervisor.terminate(worker, 20)
        committed = app.committed()
        doomed = f"{app.settings.topic_prefix}doomed.{trial.rng.randrange(1 << 40):x}"
        sent = len(stream.acknowledged)
        stream.publish(
            Sent(META, doomed.encode(), json.dumps(_event(doomed, number)).encode()) for number in range(DOOMED)
        )
        topic, partition = stream.acknowledged[sent][:2]
        first = committed[topic, partition]
        kept = first + trial.rng.randint(DOOMED // 4, DOOMED // 2)
        trial.strike()
        target = TopicPartition(name(app.settings, topic), partition, kept)
        [deleted] = app.admin.delete_records([target]).values()
        assert deleted.result(ANSWER_S).low_watermark == kept
        app.reader.skip(topic, partition, kept)
        app.deleted += kept - first
        stream.acknowledged = [
            told
            for told in stream.acknowledged
            if not (told.topic == topic and told.partition == partition and first <= told.offset < kept)
        ]
        self._gap = (f"{topic}/{partition}", kept - first)
        stream.start()
        for worker in workers:
            app.supervisor.resume(worker)
        since = time.time()
        app.wait("the workers go on behind the gap", partial(app.checkpointed, since), 60)

    def verify(self, trial: Trial) -> None:
        where, count = self._gap
        told: dict[str, int] = {}
        for page in trial.app.statuses().values():
            for place, lost in page.get("lost_records", {}).items():
                if lost:
                    told[place.removeprefix(trial.app.settings.topic_prefix)] = lost
        trial.result.facts["gap"] = {"deleted": {where: count}, "told": told}
        trial.require(told == {where: count}, f"{count} records of {where} were deleted unread, the pages say {told}")
        said = [
            worker
            for worker in trial.app.supervisor.workers
            if any(str(count) in line and where in line for line in worker.log.read_text(errors="replace").split("\n"))
        ]
        trial.require(bool(said), f"no worker's log says that {count} records of {where} are lost")
