"""Training for the stream: daily rows in, a judged model out, and onto the topic that workers follow."""

from collections.abc import Callable
from datetime import date
from typing import Final

import msgspec

from core.learning import ctr_fitting
from core.learning.ctr_fitting import Control, Fitted
from core.learning.ctr_model import KIND, CtrModel
from core.learning.walk import DEFAULT_CONFIG, LearningConfig
from core.profile import Profile
from schemas import topics as names
from schemas.model import LARGEST, TrainingData, key
from stream_app.errors import ParallaxError, ServerAbsent, SetupError
from stream_app.extent import ExtentReader
from stream_app.history import DailyRows, in_windows
from stream_app.producer import Outgoing
from stream_app.sending import BY_KEY, send_all
from stream_app.settings import Settings
from stream_app.topics import DERIVED_MAX_BYTES, name

Progress = Callable[[str, int, int], None]
DELIVERY_S: Final = 30
NOT_MEASURES: Final = ("predictor", "axis", "segment")


class Trained(msgspec.Struct, frozen=True, eq=False):
    """A model whose header says everything, and what it was judged by. ``refusal`` is why it must not be published, in
    a sentence; empty where nothing stands against it.
    """

    model: CtrModel
    fitted: Fitted
    control: Control
    refusal: str


def train(
    rows: DailyRows,
    sources: tuple[str, ...],
    profile: Profile,
    split: int | None = None,
    days: int = 1,
    config: LearningConfig = DEFAULT_CONFIG,
    progress: Progress = lambda stage, done, total: None,
) -> Trained:
    """Train on what lies before ``split`` (a day, as ``date.toordinal`` counts), judge on the rest, and on labels
    shuffled. Without one the latest windows are judged, as many as promotion asks for.

    The same rows give the same bytes. ``progress`` gets what is being done, and how far. Raises ``ParallaxError``
    where there is too little to learn from or to judge by.
    """
    if not rows.day:
        raise ParallaxError("there is no row with impressions to train on: widen --from and --to")
    latest = max(rows.day)
    begin = latest + 1 - config.rule.windows * days if split is None else split
    past = in_windows(rows, profile, begin, days)
    try:
        fitted = ctr_fitting.fit(past, 0, config, lambda done, total: progress("training", done, total))
        control = ctr_fitting.control(past, 0, config, lambda done, total: progress("shuffled", done, total))
    except ValueError as error:
        said = f"cannot train with the split {date.fromordinal(begin)}: {error}"
        raise ParallaxError(
            f"{said}, and days are known from {date.fromordinal(min(rows.day))} to {date.fromordinal(latest)}"
        ) from None
    refusal = _refusal(fitted, control)
    first, end = (begin + step * days for step in fitted.model.steps)
    learned = past.window < 0
    model = fitted.model.described(
        horizon=f"{days}d",
        profile=profile.version,
        first_day=date.fromordinal(max(first, min(rows.day))),
        last_day=date.fromordinal(end - 1),
        promoted=not refusal,
        why=refusal or f"beats the default on {', '.join(fitted.earned)}",
        measures={
            one.predictor: {
                measure: getattr(one, measure) for measure in one.__struct_fields__ if measure not in NOT_MEASURES
            }
            for one in fitted.summary
        },
        data=TrainingData(
            sources=sources,
            rows=int(learned.sum()),
            series=int(past.platform.size),
            digest=ctr_fitting.digest(past, 0),
        ),
        details={
            **fitted.model.header.details,
            "split": date.fromordinal(begin).isoformat(),
            "windows": fitted.windows,
            "standings": msgspec.to_builtins(fitted.standings),
            "control": msgspec.to_builtins(control),
            "config": msgspec.to_builtins(config.model),
        },
    )
    return Trained(model, fitted, control, refusal)


def _refusal(fitted: Fitted, control: Control) -> str:
    if control.fails:
        return "tells rows apart whose labels were shuffled: something shows it what it is to predict"
    if not fitted.earned:
        found = "; ".join(f"on {platform} {one.reason}" for platform, one in fitted.standings.items())
        return f"does not beat the default: {found}"
    return ""


def refuse_absent(settings: Settings) -> None:
    """Raises ``SetupError`` where the topic of the models is missing, ``ServerAbsent`` without a broker."""
    with ExtentReader(settings) as reader:
        reader.partitions(name(settings, names.MODELS))


def publish(settings: Settings, model: CtrModel) -> None:
    """Send the model and wait until it is durable. Raises ``ServerAbsent``, and ``SetupError`` for one too large."""
    payload = model.to_bytes()
    if len(payload) > LARGEST:
        raise SetupError(f"the model has {len(payload):,} bytes, {LARGEST:,} is what its topic takes")
    record = Outgoing(name(settings, names.MODELS), BY_KEY, key(KIND, model.header.horizon), payload)
    if failures := send_all(settings, [record], DERIVED_MAX_BYTES).failures:
        raise ServerAbsent(
            f"Kafka at {settings.kafka_bootstrap} did not take the model ({failures[0]}): publish it again"
        )
