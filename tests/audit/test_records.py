import msgspec
import pytest

from audit.records import RequestRecord, decode, encode
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
