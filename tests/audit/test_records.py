from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from audit.records import (
    Place,
    PlaceTrait,
    PolicyOutcome,
    PolicyRecord,
    PolicyStep,
    RequestRecord,
    RollbackReason,
    decode,
    encode,
)
from policies import DataClass, Purpose


def test_a_record_reads_back_from_its_canonical_bytes(request_record):
    leaf = encode(request_record)
    assert decode(leaf) == request_record
    assert encode(decode(leaf)) == leaf


def test_a_record_has_no_field_for_content(request_record):
    fields = msgspec.to_builtins(request_record)
    for content in ("inputs", "outputs", "data", "message", "detail", "name", "text"):
        assert content not in fields
        with pytest.raises(msgspec.ValidationError):
            decode(msgspec.json.encode({**fields, "type": "request", content: "free text"}))


@pytest.mark.parametrize("field", ["principal", "model", "placement", "purpose", "data_class"])
def test_identifiers_cannot_carry_sentences(request_record, field):
    fields = {**msgspec.to_builtins(request_record), "type": "request"}
    decode(msgspec.json.encode(fields))
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.json.encode({**fields, field: "Jane Doe has sepsis"}))


def test_a_subject_is_a_pseudonym_or_nothing(request_record):
    fields = {**msgspec.to_builtins(request_record), "type": "request", "subject": "mrn-1"}
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.json.encode(fields))


def test_every_fact_of_the_policies_fits_a_record(request_record):
    for data_class in DataClass:
        for purpose in Purpose:
            record = msgspec.structs.replace(request_record, data_class=data_class, purpose=purpose)
            assert isinstance(decode(encode(record)), RequestRecord)


def test_a_record_from_before_places_were_recorded_still_reads(request_record):
    leaf = encode(request_record)
    assert b"candidates" not in leaf
    record = decode(leaf)
    assert (record.on_device, record.carries_payload, record.candidates) == (None, None, ())


def test_a_place_is_recorded_as_policies_saw_it(request_record):
    places = (
        Place("node:us-1", "US-CA", (PlaceTrait.ON_PREMISES,)),
        Place("device:5dd1fd0787", "", (PlaceTrait.HOLDS_SUBJECT,)),
    )
    leaf = encode(msgspec.structs.replace(request_record, candidates=places))
    assert b'["node:us-1","US-CA",["on-premises"]]' in leaf
    assert decode(leaf).candidates == places
    for wrong in (b'["Jane Doe","US",[]]', b'["node:a","US",["a sentence"]]', b'["node:a","here",[]]'):
        with pytest.raises(msgspec.ValidationError):
            decode(leaf.replace(b'["node:us-1","US-CA",["on-premises"]]', wrong))


@pytest.mark.parametrize("field", ["principal", "reason", "problem", "step", "bundle"])
def test_a_step_of_a_policy_holds_closed_values_only(field):
    record = PolicyRecord(
        time=datetime(2026, 11, 24, tzinfo=UTC),
        id=UUID(int=9),
        step=PolicyStep.ROLLBACK,
        outcome=PolicyOutcome.DONE,
        bundle="ab" * 32,
        version=4,
        approvers=("alice", "bob"),
        restores=2,
        reason=RollbackReason.WRONG_REFUSALS,
    )
    assert decode(encode(record)) == record
    fields = msgspec.to_builtins(record)
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.json.encode({**fields, field: "since Jane Doe was refused"}))
