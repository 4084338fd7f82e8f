from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cmunet.io.masks.files import record_of
from napari_cmunet.io.provenance import SCHEMA, Provenance

HASH = "0123456789abcdef" * 4


def test_defaults_say_what_and_when():
    values = Provenance().to_dict()
    assert values["schema"] == SCHEMA
    assert values["program"] == "napari-cmunet"
    assert "Not a medical device" in values["notice"]
    assert datetime.fromisoformat(values["created"]).utcoffset() == timedelta(0)
    assert values["version"]


@given(
    st.builds(
        Provenance,
        model=st.none() | st.text(),
        model_sha256=st.none() | st.just(HASH),
        threshold=st.none() | st.floats(0, 1),
        frames=st.none() | st.lists(st.integers(0, 500)),
        corrected=st.booleans(),
    )
)
@pytest.mark.slow
def test_round_trip(provenance):
    text = json.dumps(provenance.to_dict())
    assert text.isascii()
    assert Provenance.from_dict(json.loads(text)) == provenance


@pytest.mark.parametrize("model", ["/home/dr smith/cmunet", "C:\\smith\\cmunet\\"])
def test_a_model_keeps_no_path(model):
    assert Provenance(model=model).model == "cmunet"


def test_hashes_are_hashes():
    with pytest.raises(ValueError, match="source_sha256"):
        Provenance(source_sha256="smith.dcm")


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000])
def test_what_is_no_object(text):
    assert record_of(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"program": "napari-cmunet"}',
        '{"program": "napari-cmunet", "schema": 1, "model": 3}',
        '{"program": "napari-cmunet", "schema": 1, "frames": 3}',
        '{"program": "napari-cmunet", "schema": 1, "model_sha256": [1]}',
    ],
)
def test_what_is_no_record(text):
    with pytest.raises(ValueError):
        Provenance.from_dict(json.loads(text))


def test_a_newer_record_says_so():
    values = Provenance().to_dict() | {"schema": SCHEMA + 1}
    with pytest.raises(ValueError, match="newer"):
        Provenance.from_dict(values)


def test_further_keys_are_ignored():
    provenance = Provenance(model="cmunet-artery")
    assert Provenance.from_dict(provenance.to_dict() | {"more": 1}) == provenance


def test_a_frame_that_is_no_number_is_damage():
    values = Provenance().to_dict() | {"frames": [float("inf")]}
    with pytest.raises(ValueError, match="damaged"):
        Provenance.from_dict(values)
