"""The wire contracts as JSON Schema (draft 2020-12), from the types that the pipeline itself decodes and encodes.

Native report rows have no schema here: they are taken in the shapes in which Airbyte, Singer and the platforms' own
APIs write them, see ``schemas.shapes``.
"""

import inspect
from typing import Any, Final

import msgspec

from schemas import topics
from schemas.account import AccountRecord
from schemas.canonical import CanonicalEvent
from schemas.creative import CreativeRecord
from schemas.creative_score import CreativeScored
from schemas.dead_letter import HEADER, DeadLetter
from schemas.insight import CrossPlatformInsight
from schemas.link import CampaignLink
from schemas.model import ModelHeader
from schemas.patterns import AccountPatterns
from schemas.prediction import CtrPrediction
from schemas.rate import ExchangeRate
from stream_app.errors import SetupError

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class Contract(msgspec.Struct, frozen=True):
    """One contract: its type, its version, and where on Kafka it is found."""

    type: type
    version: int
    title: str
    place: str
    rules: dict[str, Any] = {}


CONTRACTS: Final = {
    "metric-event": Contract(
        CanonicalEvent,
        1,
        "Canonical metric event",
        f"Value of a record on {', '.join(topics.METRICS_TOPICS.values())}. The same topics take native report rows of"
        " their platform, in the shapes of Airbyte, Singer and the platform's own API.",
        {
            "if": {"properties": {"kind": {"const": "delta"}}},
            "then": {"properties": {"event_id": {"minLength": 1}}, "required": ["event_id"]},
            "else": {"properties": {"period_end": {"type": ["integer", "string"]}}, "required": ["period_end"]},
        },
    ),
    "campaign-link": Contract(
        CampaignLink, 1, "Campaign link", f"Value of a record on {topics.CAMPAIGN_LINKS}, keyed platform:campaign id."
    ),
    "exchange-rate": Contract(
        ExchangeRate, 1, "Exchange rate", f"Value of a record on {topics.RATES}, keyed currency:date."
    ),
    "account": Contract(
        AccountRecord, 1, "Facts of an ad account", f"Value of a record on {topics.ACCOUNTS}, keyed platform:account."
    ),
    "creative": Contract(
        CreativeRecord, 1, "Creative", f"Value of a record on {topics.CREATIVES}, keyed by the creative's id."
    ),
    "insight": Contract(
        CrossPlatformInsight,
        1,
        "Cross-platform insight",
        f"Value of a record on {topics.INSIGHTS}, on {topics.INSIGHTS_LATEST} (compacted by insight id), and in Redis.",
    ),
    "prediction": Contract(
        CtrPrediction, 1, "CTR prediction", f"Value of a record on {topics.PREDICTIONS}, and in Redis."
    ),
    "patterns": Contract(
        AccountPatterns,
        1,
        "Cross-platform patterns",
        f"Value of a record on {topics.PATTERNS}, keyed platform:account or all; null where nothing is left.",
    ),
    "creative-score": Contract(
        CreativeScored, 1, "Creative's score", f"Value of a record on {topics.CREATIVE_SCORES}, keyed by its creative."
    ),
    "model-header": Contract(
        ModelHeader,
        1,
        "Model header",
        f"Second line of a model, the value of a record on {topics.MODELS}, keyed kind/horizon. The first line is"
        " `parallax-model 1 LENGTH SHA256` over all that follows it; the trees, UBJSON of XGBoost, are the rest.",
    ),
    "dead-letter": Contract(
        DeadLetter,
        1,
        "Dead letter",
        f"Header {HEADER} of a record on {topics.DEAD_LETTERS}, whose key, value and other headers are the original's.",
    ),
}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a contract. Raises ``SetupError`` for an unknown name."""
    if name not in CONTRACTS:
        raise SetupError(f"there is no contract {name!r}: choose from {', '.join(CONTRACTS)}")
    contract = CONTRACTS[name]
    generated = msgspec.json.schema(contract.type)
    head = {
        "$schema": DIALECT,
        "$id": f"urn:parallax:{name}:{contract.version}",
        "title": contract.title,
        "description": contract.place,
    }
    found: dict[str, Any] = head | _described(generated) | contract.rules
    return found


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every contract by name."""
    return {name: schema(name) for name in CONTRACTS}


def _described(node: Any) -> Any:
    """A schema whose descriptions have lost the indentation of their docstrings."""
    if isinstance(node, dict):
        return {
            key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _described(value)
            for key, value in node.items()
        }
    return [_described(item) for item in node] if isinstance(node, list | tuple) else node
