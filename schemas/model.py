"""Trained models: what a model is, what it was trained on and how well it did, and its trees, under one checksum.

Wire, the value of a record on ``models.ctr`` and of a model file:

```
parallax-model 1 <bytes of all that follows> <their SHA-256, hexadecimal>\\n
<JSON of ModelHeader, without a line break>\\n
<XGBoost model, UBJSON; nothing where a model has no trees>
```
"""

from datetime import date
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

import msgspec

VERSION: Final = 1
MAGIC: Final = b"parallax-model "
LARGEST: Final = 4 * 1024 * 1024 - 4096
"""Bytes of a model that ``models.ctr`` takes with its key and framing."""
LONGEST_FIRST_LINE: Final = 120
ID_CHARS: Final = 16

Measured = dict[str, dict[str, int | float | None]]
"""What each predictor scored on the same rows, by the measure's name."""


class RefusalCode(StrEnum):
    """Why bytes are no model to predict with."""

    EMPTY = "empty"
    NOT_A_MODEL = "not_a_model"
    UNKNOWN_VERSION = "unknown_version"
    TRUNCATED = "truncated"
    CHECKSUM = "checksum"
    HEADER = "header"
    OTHER_KIND = "other_kind"
    OTHER_FEATURES = "other_features"
    OTHER_PROFILE = "other_profile"
    NOT_TREES = "not_trees"
    NOT_A_PROBABILITY = "not_a_probability"


class ModelRefused(ValueError):
    """Bytes that are not a model to predict with; ``reason`` is one sentence."""

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class TrainingData(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was made from: names of files or topics, and how much they held in the training days.

    ``digest``: SHA-256 of the rows as they were learned, so that the same rows can be told from others.
    """

    sources: tuple[str, ...] = ()
    rows: int = 0
    series: int = 0
    digest: str = ""


class ModelHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says of itself.

    ``kind`` and ``horizon`` say what it predicts, and how far ahead (empty where data has no time). ``profile``: the
    version of the benchmarks that its features stand on. ``first_day`` and ``last_day`` bound what it has learned
    from. ``promoted`` says that it beat the default on rows that it had not seen, ``why`` in a sentence what was
    found, ``measures`` how all predictors did there. ``details`` are the kind's own.
    """

    kind: str
    horizon: str = ""
    feature_names: tuple[str, ...]
    profile: str = ""
    first_day: date | None = None
    last_day: date | None = None
    promoted: bool = False
    why: str = ""
    measures: Measured = {}
    data: TrainingData = TrainingData()
    details: dict[str, Any] = {}


class Model(msgspec.Struct, frozen=True):
    """A header and the trees' bytes."""

    header: ModelHeader
    trees: bytes


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(ModelHeader).decode


def encode(header: ModelHeader, trees: bytes) -> bytes:
    """A model's bytes, the same for the same content."""
    content = _encode(header) + b"\n" + trees
    return b"%b%d %d %b\n" % (MAGIC, VERSION, len(content), sha256(content).hexdigest().encode()) + content


def decode(payload: bytes | None) -> Model:
    """The model of its bytes, whose trees nobody has looked at yet. Raises ``ModelRefused`` for anything else."""
    if not payload:
        raise ModelRefused(RefusalCode.EMPTY, "there is no model: the data is empty")
    first, ended, content = payload.partition(b"\n")
    if MAGIC.startswith(payload[: len(MAGIC)]) and not ended:
        raise ModelRefused(RefusalCode.TRUNCATED, "the model is truncated: its first line does not end")
    version, _, rest = first.removeprefix(MAGIC).partition(b" ")
    length, _, checksum = rest.partition(b" ")
    if not first.startswith(MAGIC) or len(first) > LONGEST_FIRST_LINE or not version.isdigit():
        raise ModelRefused(RefusalCode.NOT_A_MODEL, "this is not a Parallax model")
    if version != b"%d" % VERSION:
        said = f"the model is of version {version.decode()}, version {VERSION} is known here"
        raise ModelRefused(RefusalCode.UNKNOWN_VERSION, said)
    if not length.isdigit():
        raise ModelRefused(RefusalCode.NOT_A_MODEL, "this is not a Parallax model: its length is no number")
    if len(content) < int(length):
        said = f"the model is truncated: {len(content):,} of {int(length):,} bytes are there"
        raise ModelRefused(RefusalCode.TRUNCATED, said)
    if sha256(content).hexdigest().encode() != checksum or len(content) != int(length):
        raise ModelRefused(RefusalCode.CHECKSUM, "the model's checksum does not hold: it was changed")
    head, _, trees = content.partition(b"\n")
    try:
        return Model(_decode(head), trees)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefused(RefusalCode.HEADER, f"the model's header cannot be read: {error}") from None


def key(kind: str, horizon: str) -> bytes:
    """The compaction key: one for each kind and horizon."""
    return f"{kind}/{horizon}".encode()


def model_id(payload: bytes) -> str:
    """A model's name: the beginning of the SHA-256 of its bytes."""
    return sha256(payload).hexdigest()[:ID_CHARS]
