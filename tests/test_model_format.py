"""Models on the wire: one format for both kinds, and every way of being none is refused by its own code."""

import json
from collections.abc import Callable
from datetime import date
from hashlib import sha256

import msgspec
import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from core.learning.ctr_model import FEATURES, CtrFeatures, CtrModel, CtrModelConfig, CtrTrainer
from schemas.model import ModelHeader, ModelRefused, RefusalCode, TrainingData, decode, encode, key, model_id
from tests.planted import Planted

HEADER = ModelHeader(
    kind="ctr",
    horizon="1d",
    feature_names=("a", "b"),
    profile="2026-01",
    first_day=date(2026, 3, 1),
    last_day=date(2026, 5, 1),
    promoted=True,
    why="beats the default on meta",
    measures={"model": {"rows": 3, "log_loss": 0.125, "mae": None}},
    data=TrainingData(sources=("rows.csv",), rows=7, series=2, digest="00ff"),
    details={"steps": [-3, 0]},
)
TREES = b"{L\x00\n\xff"
GOLDEN = (
    b"parallax-model 1 335 585ac1cf86e54a3005d36c30747404cd392bcf70728aef1a7bf7c30df833b72c\n"
    b'{"kind":"ctr","horizon":"1d","feature_names":["a","b"],"profile":"2026-01","first_day":"2026-03-01",'
    b'"last_day":"2026-05-01","promoted":true,"why":"beats the default on meta","measures":{"model":{"log_loss":0.125,'
    b'"mae":null,"rows":3}},"data":{"sources":["rows.csv"],"rows":7,"series":2,"digest":"00ff"},'
    b'"details":{"steps":[-3,0]}}\n{L\x00\n\xff'
)


@pytest.fixture(scope="module")
def model() -> CtrModel:
    return trained().described(horizon="1d", profile="p1", first_day=date(2026, 3, 1), last_day=date(2026, 3, 20))


def trained(seed: int = 3) -> CtrModel:
    truth, features = Planted(seed=seed, windows=20, series=20), CtrFeatures(20)
    trainer = CtrTrainer(CtrModelConfig(least_clicks=10.0, least_child_weight=1.0, rounds=5))
    for day in range(20):
        rate = np.full(20, 0.03)
        rows = features.of(np.arange(20), rate, np.full(20, 40.0))
        trainer.add(day, rows, truth.impressions[day], truth.clicks[day], rate)
        features.advance(np.arange(20), truth.impressions[day], truth.clicks[day])
    found = trainer.train(20)
    assert found is not None
    return found


def test_version_1_is_for_ever() -> None:
    assert encode(HEADER, TREES) == GOLDEN
    assert decode(GOLDEN).header == HEADER
    assert decode(GOLDEN).trees == TREES
    assert model_id(GOLDEN) == sha256(GOLDEN).hexdigest()[:16]
    assert key("ctr", "1d") == b"ctr/1d"


def test_a_model_of_a_later_minor_version_may_say_more() -> None:
    _, header, trees = GOLDEN.split(b"\n", 2)
    content = header[:-1] + b',"later":1}\n' + trees
    payload = b"parallax-model 1 %d %b\n" % (len(content), sha256(content).hexdigest().encode()) + content
    assert decode(payload).header == HEADER


def test_a_model_survives_as_bytes(model: CtrModel) -> None:
    payload = model.to_bytes()
    again = CtrModel.from_bytes(payload, "p1")
    assert again.to_bytes() == payload
    assert (again.model_id, again.steps, again.header) == (model.model_id, (0, 20), model.header)
    rows = np.random.default_rng(1).normal(size=(50, len(FEATURES))).astype(np.float32)
    rates = np.linspace(0.001, 0.3, 50)
    assert again.predict(rows, rates).tobytes() == model.predict(rows, rates).tobytes()
    assert trained().to_bytes() == trained().to_bytes()


def remade(model: CtrModel, **fields: object) -> bytes:
    """The model with other things said in its header."""
    found = decode(model.to_bytes())
    return encode(msgspec.structs.replace(found.header, **fields), found.trees)


def with_trees(model: CtrModel, trees: bytes) -> bytes:
    return encode(model.header, trees)


def of_other_names(model: CtrModel) -> bytes:
    """Trees whose own names are in another order than the header says."""
    booster = xgboost.Booster(model_file=bytearray(decode(model.to_bytes()).trees))
    booster.feature_names = list(FEATURES[::-1])
    return with_trees(model, bytes(booster.save_raw("ubj")))


def giving_nan(model: CtrModel) -> bytes:
    """Trees with leaves that are no numbers."""
    booster = xgboost.Booster(model_file=bytearray(decode(model.to_bytes()).trees))
    document = json.loads(bytes(booster.save_raw("json")))
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        tree["split_conditions"] = [float("nan")] * len(tree["split_conditions"])
    booster.load_model(bytearray(json.dumps(document).encode()))
    return with_trees(model, bytes(booster.save_raw("ubj")))


def of_three_classes(model: CtrModel) -> bytes:
    data = xgboost.DMatrix(np.zeros((6, len(FEATURES))), label=[0, 1, 2, 0, 1, 2], feature_names=list(FEATURES))
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, data, 1)
    return with_trees(model, bytes(booster.save_raw("ubj")))


def flipped(payload: bytes, at: int) -> bytes:
    return payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]


BAD: dict[str, tuple[Callable[[CtrModel], bytes | None], RefusalCode, str]] = {
    "missing": (lambda model: None, RefusalCode.EMPTY, "there is no model"),
    "empty": (lambda model: b"", RefusalCode.EMPTY, "there is no model"),
    "other bytes": (lambda model: b"{}\n{}", RefusalCode.NOT_A_MODEL, "not a Parallax model"),
    "a pickle": (lambda model: b"\x80\x04N.", RefusalCode.NOT_A_MODEL, "not a Parallax model"),
    "half": (lambda model: model.to_bytes()[:2000], RefusalCode.TRUNCATED, "bytes are there"),
    "a byte less": (lambda model: model.to_bytes()[:-1], RefusalCode.TRUNCATED, "bytes are there"),
    "its beginning": (lambda model: model.to_bytes()[:20], RefusalCode.TRUNCATED, "does not end"),
    "a byte more": (lambda model: model.to_bytes() + b"x", RefusalCode.CHECKSUM, "checksum"),
    "a bit in the trees": (lambda model: flipped(model.to_bytes(), -99), RefusalCode.CHECKSUM, "checksum"),
    "a bit in the header": (lambda model: flipped(model.to_bytes(), 200), RefusalCode.CHECKSUM, "checksum"),
    "version 2": (
        lambda model: model.to_bytes().replace(b"parallax-model 1", b"parallax-model 2"),
        RefusalCode.UNKNOWN_VERSION,
        "version 2, version 1 is known",
    ),
    "no header": (lambda model: _sealed(b"[]\n"), RefusalCode.HEADER, "header"),
    "a deep header": (lambda model: _sealed(b"[" * 100_000), RefusalCode.HEADER, "header"),
    "no steps": (lambda model: remade(model, details={}), RefusalCode.HEADER, "steps"),
    "other kind": (lambda model: remade(model, kind="ctr_across_platforms"), RefusalCode.OTHER_KIND, "of kind"),
    "other names": (lambda model: remade(model, feature_names=("x",)), RefusalCode.OTHER_FEATURES, "other features"),
    "other order": (
        lambda model: remade(model, feature_names=FEATURES[::-1]),
        RefusalCode.OTHER_FEATURES,
        "in another order",
    ),
    "trees in other order": (of_other_names, RefusalCode.OTHER_FEATURES, "the model's trees"),
    "other profile": (lambda model: remade(model, profile="p2"), RefusalCode.OTHER_PROFILE, "profile p2"),
    "no trees": (lambda model: with_trees(model, b""), RefusalCode.NOT_TREES, "cannot read"),
    "no booster": (lambda model: with_trees(model, b"{not trees}"), RefusalCode.NOT_TREES, "cannot read"),
    "NaN": (giving_nan, RefusalCode.NOT_A_PROBABILITY, "not a probability"),
    "three classes": (of_three_classes, RefusalCode.NOT_A_PROBABILITY, "more than one number"),
}


def _sealed(content: bytes) -> bytes:
    return b"parallax-model 1 %d %b\n" % (len(content), sha256(content).hexdigest().encode()) + content


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_model_is_refused_by_its_code(name: str, model: CtrModel) -> None:
    damage, code, words = BAD[name]
    with pytest.raises(ModelRefused, match=words) as refused:
        CtrModel.from_bytes(damage(model), "p1")
    assert refused.value.code == code
    assert refused.value.reason == str(refused.value)
    assert "\n" not in refused.value.reason


def test_every_code_of_a_refusal_is_tried() -> None:
    assert {code for _, code, _ in BAD.values()} == set(RefusalCode)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: b"parallax-model 1 " + rest))
def test_decoding_is_total(payload: bytes) -> None:
    with pytest.raises(ModelRefused):
        decode(payload)


@given(st.data())
def test_any_damage_is_noticed(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOLDEN) - 1))
    damaged = flipped(GOLDEN, at) if data.draw(st.booleans()) else GOLDEN[:at] + GOLDEN[at + 1 :]
    with pytest.raises(ModelRefused):
        decode(damaged)
