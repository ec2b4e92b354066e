"""JSON Schemas of the wire: the pipeline's real output and sound input satisfy them, unsound input does not."""

import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from core.campaigns import InsightConfig
from core.ingest import Ingest
from core.lateness import Lateness
from core.learning.creative_report import report
from core.learning.creative_results import CreativeResults
from core.offline import Computed, compute
from core.profile import DEFAULT_PROFILE
from examples.simulated import simulate
from schemas import creative_score, dead_letter, insight, model, prediction
from schemas.creative import Creative
from schemas.dates import LATEST_MS
from schemas.model import ModelHeader
from schemas.topics import CAMPAIGN_LINKS, METRICS_TOPICS
from stream_app import contracts
from stream_app.errors import SetupError
from stream_app.files import REPORTING, arrivals

ROOT = Path(__file__).parents[1]
NATIVE = ROOT.parent / "shared" / "native"
ARRIVAL_MS = 1_800_000_000_000

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}
KNOWN = {
    *("$schema", "$id", "$ref", "$defs", "title", "description", "default", "type", "enum", "const", "anyOf"),
    *("properties", "required", "additionalProperties", "items", "minimum", "maximum", "minLength", "maxLength"),
    *("pattern", "if", "then", "else", "maxItems", "format"),
}


def is_type(value: Any, name: str) -> bool:
    if name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """What of the value breaks the schema: as much of JSON Schema as the contracts use, and no keyword beyond."""
    assert schema.keys() <= KNOWN, schema.keys() - KNOWN
    found: list[str] = []
    if "$ref" in schema:
        found += problems(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, at)
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(is_type(value, name) for name in types):
        return [*found, f"{at} is no {types}"]
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        found.append(f"{at} is not one of the allowed")
    if "anyOf" in schema and all(problems(value, option, root, at) for option in schema["anyOf"]):
        found.append(f"{at} fits no alternative")
    if "if" in schema:
        branch = "else" if problems(value, schema["if"], root, at) else "then"
        found += problems(value, schema[branch], root, at)
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            found.append(f"{at} has a wrong length")
        if not re.search(schema.get("pattern", ""), value):
            found.append(f"{at} has a wrong form")
    if is_type(value, "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{at} is out of range")
    if isinstance(value, dict):
        found += [f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            found += problems(item, inner, root, f"{at}.{name}")
    if isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            found.append(f"{at} has too many items")
        for index, item in enumerate(value):
            found += problems(item, schema.get("items", {}), root, f"{at}[{index}]")
    return found


def breaks(name: str, value: Any) -> list[str]:
    schema = contracts.schema(name)
    return problems(value, schema, schema)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    links = tmp_path_factory.mktemp("links") / "links.jsonl"
    links.write_text(json.dumps(LINK | {"platform_campaign_id": "20643300404"}) + "\n")
    poison = links.with_name("poison.jsonl")
    poison.write_bytes(b'\xff\n{"version":1,"kind":"delta"}\n')
    batches = [(CAMPAIGN_LINKS, 0, list(arrivals(links, ARRIVAL_MS)))]
    for number, platform in enumerate(REPORTING):
        for path in [*sorted((NATIVE / platform).glob("*.json*")), poison]:
            offset = 1_000_000 * number + sum(len(records) for _, _, records in batches)
            batches.append((METRICS_TOPICS[platform], 0, list(arrivals(path, ARRIVAL_MS, first_offset=offset))))
    return compute(
        [(topic, partition, list(records)) for topic, partition, records in batches],
        Ingest(partitions=1, lateness=Lateness(horizon_ms=LATEST_MS)),
        InsightConfig(),
        predictions=True,
    )


LINK = {"version": 1, "platform": "google_ads", "platform_campaign_id": "1", "campaign_id": "summer"}
DELTA = {
    "version": 1,
    "kind": "delta",
    "event_id": "e",
    "platform": "meta",
    "campaign_id": "1",
    "period_start": "2026-01-31T10:00:00Z",
    "clicks": 1,
}
ACCOUNT = {"version": 1, "platform": "meta", "account_id": "77", "time_zone": "Asia/Kolkata", "currency": "INR"}
RATE = {"version": 1, "date": "2026-01-03", "currency": "EUR", "per": "USD", "rate": "1.0831"}
CREATIVE: dict[str, Any] = {
    "version": 1,
    "creative_id": "cr-1",
    "hook": "question",
    "ads": [{"platform": "meta", "ad_id": "5"}],
}
SNAPSHOT = {**DELTA, "kind": "snapshot", "event_id": "", "period_end": 1_769_904_000_000, "quality": 7.5}


def test_real_output_satisfies_its_schema(computed: Computed) -> None:
    assert computed.insights
    assert computed.predictions
    assert len(computed.rejected) == 6
    for one in computed.insights:
        assert breaks("insight", json.loads(insight.encode(one))) == []
    for rate in computed.predictions:
        assert breaks("prediction", json.loads(prediction.encode(rate))) == []
    for row in computed.rejected:
        assert breaks("dead-letter", json.loads(dead_letter.encode(row.letter))) == []


def test_a_models_header_and_a_creatives_score_satisfy_theirs() -> None:
    header = ModelHeader(
        kind="ctr",
        horizon="1d",
        feature_names=("log_impressions",),
        first_day=date(2026, 1, 1),
        measures={"model": {"rows": 7, "log_loss": 0.1, "coverage": None}},
        details={"split": "2026-01-02", "standings": {"meta": [1, None]}},
    )
    sealed = model.encode(header, b"trees").split(b"\n")[1]
    assert breaks("model-header", json.loads(sealed)) == []
    assert breaks("model-header", json.loads(sealed) | {"feature_names": [1]})
    world = simulate(8, seed=1, creatives=4)
    whole = {campaign.creative_id: campaign.platforms for campaign in world.campaigns}
    results = CreativeResults(
        shown=world.campaigns, whole=whole, first_day=1, last_day=2, as_of_ms=3, ads=4, unknown_ads=0
    )
    unseen = Creative(creative_id="unseen")
    found = report([*world.creatives, unseen], results, DEFAULT_PROFILE)
    assert {score.method for score in found.scores} >= {"results_and_dna", "none"}
    for score in found.scores:
        assert breaks("creative-score", json.loads(creative_score.encode(score))) == []
    assert breaks("creative-score", json.loads(creative_score.encode(found.scores[0])) | {"score": 2})


def test_output_with_a_field_less_or_of_another_type_does_not(computed: Computed) -> None:
    sound = json.loads(insight.encode(computed.insights[0]))
    assert breaks("insight", {name: value for name, value in sound.items() if name != "totals"}) == [
        "$.totals is missing"
    ]
    assert breaks("insight", sound | {"campaign_id": 7})
    assert breaks("insight", sound | {"coverage": {"meta": "all"}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metric-event", DELTA),
        ("metric-event", SNAPSHOT),
        ("metric-event", DELTA | {"segments": {"device": "phone"}, "unknown": 1}),
        ("campaign-link", LINK),
        ("campaign-link", LINK | {"campaign_id": None}),
        ("account", ACCOUNT),
        ("account", ACCOUNT | {"time_zone": None, "currency": None}),
        ("creative", CREATIVE),
        ("creative", CREATIVE | {"length_seconds": None, "updated_at": 1_767_225_600_000}),
        ("exchange-rate", RATE),
        ("exchange-rate", RATE | {"rate": 1.0831, "updated_at": 1_767_225_600_000}),
        ("exchange-rate", RATE | {"rate": None}),
    ],
)
def test_sound_input_satisfies_its_schema(name: str, value: Any) -> None:
    assert breaks(name, value) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metric-event", {**DELTA, "version": 2}),
        ("metric-event", {**DELTA, "event_id": ""}),
        ("metric-event", {name: value for name, value in DELTA.items() if name != "event_id"}),
        ("metric-event", {name: value for name, value in SNAPSHOT.items() if name != "period_end"}),
        ("metric-event", SNAPSHOT | {"period_end": None}),
        ("metric-event", {**DELTA, "clicks": -1}),
        ("metric-event", {**DELTA, "clicks": 1.5}),
        ("metric-event", {**DELTA, "currency": "usd"}),
        ("metric-event", {**DELTA, "platform": "unknown"}),
        ("metric-event", []),
        ("campaign-link", {**LINK, "platform_campaign_id": ""}),
        ("campaign-link", {name: value for name, value in LINK.items() if name != "campaign_id"}),
        ("account", ACCOUNT | {"platform": "unknown"}),
        ("account", {name: value for name, value in ACCOUNT.items() if name != "account_id"}),
        ("creative", CREATIVE | {"creative_id": ""}),
        ("creative", CREATIVE | {"ads": [{"platform": "unknown", "ad_id": "5"}]}),
        ("creative", CREATIVE | {"ads": CREATIVE["ads"] * 1_001}),
        ("creative", CREATIVE | {"hook": "x" * 65}),
        ("exchange-rate", RATE | {"currency": "euro"}),
        ("exchange-rate", RATE | {"rate": {}}),
        ("exchange-rate", {name: value for name, value in RATE.items() if name != "rate"}),
    ],
)
def test_unsound_input_does_not(name: str, value: Any) -> None:
    assert breaks(name, value)


def test_every_type_is_titled_and_described() -> None:
    for name, schema in contracts.schemas().items():
        assert schema["$id"] == f"urn:parallax:{name}:1"
        for node in (schema, *schema["$defs"].values()):
            assert node["title"]
            assert node["description"]
            assert "\n   " not in node["description"]


def test_an_unknown_name_is_one_line_with_the_known_ones() -> None:
    with pytest.raises(SetupError, match=", ".join(contracts.CONTRACTS)):
        contracts.schema("nothing")


def test_the_same_text_in_every_process() -> None:
    def printed(seed: str) -> str:
        command = [sys.executable, "-m", "stream_app", "schema"]
        return subprocess.run(
            command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout

    first = printed("1")
    assert json.loads(first) == contracts.schemas()
    assert printed("2") == first
