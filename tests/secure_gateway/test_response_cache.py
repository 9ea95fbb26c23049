"""The response cache: what may be kept, under which key, how, and for how long."""

import asyncio
import re
import tomllib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.caching import (
    MODEL,
    SECRET,
    Model,
    cache,
    decision,
    exchange,
    facts,
    memory,
    question,
    tensor,
)

from bedside.demo.canaries import Canaries
from inference_node import InferResponse, RequestedOutput, Tensor, decode_request
from inference_node.oip import DTYPES
from policies import DataClass, Decision, Role
from policies.decision import combine
from secure_gateway.cache import CacheSettings, MemoryBackend, ResponseCache, cacheable
from secure_gateway.cache.memory import ENTRY_BYTES
from secure_gateway.errors import Refusal
from secure_gateway.exchange import ModelInfo


def key(request, *, model=MODEL, tenant="dr.adams", secret=SECRET):
    return cache(secret=secret).key(tenant, model, request)


# What may be kept.


@pytest.mark.parametrize("data_class", DataClass)
def test_only_what_is_no_health_information_is_kept_by_default(data_class):
    free = data_class in (DataClass.DEIDENTIFIED, DataClass.SYNTHETIC)
    assert cacheable(decision(), facts(data_class)) is free
    assert cacheable(decision("review"), facts(data_class)) is free


@pytest.mark.parametrize("data_class", DataClass)
def test_a_policy_may_permit_it_and_another_forbid_it(data_class):
    assert cacheable(decision("may_cache"), facts(data_class))
    assert not cacheable(decision("no_cache"), facts(data_class))
    assert not cacheable(decision("may_cache", "no_cache"), facts(data_class))
    assert not cacheable(decision("may_cache", others=("no_cache",)), facts(data_class))


def test_permission_to_keep_does_not_spread_to_places_that_were_permitted_without_it():
    mixed = decision("may_cache", others=())
    assert "may_cache" in mixed.obligations
    assert not cacheable(mixed, facts(DataClass.PHI))
    assert cacheable(decision("may_cache", others=("may_cache",)), facts(DataClass.PHI))


def test_nothing_is_kept_of_what_was_refused():
    assert not cacheable(combine((), "cd" * 32), facts())


def test_the_packs_of_this_site_permit_it_for_nobodys_health_data():
    from policies import Candidate, Engine, ModelAccess, PlacementKind, Purpose, build_bundle

    access = ModelAccess(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT,))
    packs = ("base", "hipaa", "gdpr", "residency")
    engine = Engine(build_bundle(packs, name="clinic", version=1, models={"sepsis": access}))
    node = Candidate(placement="node:a", kind=PlacementKind.NODE, jurisdiction="US-CA")
    kept = {}
    for data_class in DataClass:
        decided: Decision = engine.decide(facts(data_class), (node,))
        assert decided.permitted
        kept[data_class] = cacheable(decided, facts(data_class))
    assert kept == {
        DataClass.PHI: False,
        DataClass.LIMITED: False,
        DataClass.DEIDENTIFIED: True,
        DataClass.SYNTHETIC: True,
    }


# The key.


def test_equal_questions_have_equal_keys_whatever_brought_them():
    a, b = tensor("a"), tensor("b", np.array([1, 2], np.int64))
    expected = key(question(a, b))
    assert len(expected) == 32
    assert key(question(b, a)) == expected
    assert key(question(a, b, id="another", binary_output=True)) == expected
    assert key(question(a, b, parameters={"binary_data_output": True, "priority": 3})) == expected
    big = tensor("a", tensor().array.astype(">f4"), datatype="FP32")
    assert key(question(big, b)) == expected
    columns = tensor("a", np.asfortranarray(tensor().array))
    assert key(question(columns, b)) == expected
    named = [RequestedOutput(name="y", binary=True, parameters={"binary_data": True})]
    assert key(question(a, outputs=named)) == key(question(a, outputs=[RequestedOutput(name="y")]))


def test_json_and_binary_tensors_ask_the_same():
    text = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[0.1,2]}]}'
    head = (
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}'
    )
    raw = np.array([0.1, 2], "<f4").tobytes()
    binary = decode_request(head + raw, header_length=len(head))
    assert key(decode_request(text)) == key(binary)


OTHERS = {
    "another value": question(tensor(array=np.arange(1, 7, dtype=np.float32).reshape(2, 3))),
    "another shape": question(tensor(array=np.arange(6, dtype=np.float32).reshape(3, 2))),
    "another datatype": question(
        tensor(array=np.arange(6, dtype=np.float32).reshape(2, 3).view(np.int32))
    ),
    "another name": question(tensor("z")),
    "another input": question(tensor(), tensor("z")),
    "an output": question(outputs=[RequestedOutput(name="y")]),
    "outputs in an order": question(outputs=[RequestedOutput(name="y"), RequestedOutput(name="z")]),
    "outputs in another": question(outputs=[RequestedOutput(name="z"), RequestedOutput(name="y")]),
    "a classification": question(outputs=[RequestedOutput(name="y", parameters={"classification": 3})]),
    "a parameter": question(parameters={"quantiles": [0.1, 0.9]}),
    "another's value": question(parameters={"quantiles": [0.1, 0.8]}),
    "texts": question(tensor(array=np.array([b"ab", b"c"], object))),
    "texts cut elsewhere": question(tensor(array=np.array([b"a", b"bc"], object))),
    "half floats": question(tensor(array=np.arange(6, dtype=ml_dtypes.bfloat16))),
}


def test_different_questions_have_different_keys():
    keys = {name: key(request) for name, request in OTHERS.items()}
    keys["plain"] = key(question())
    assert len(set(keys.values())) == len(OTHERS) + 1


def test_each_tenant_model_and_site_has_keys_of_its_own():
    asked = question()
    keys = {
        key(asked),
        key(asked, tenant="dr.baker"),
        key(asked, secret=bytes(32)),
        key(asked, model=ModelInfo("sepsis", "1", "cd" * 32)),
        key(asked, model=ModelInfo("sepsis", "2", "ab" * 32)),
        key(asked, model=ModelInfo("stroke", "1", "ab" * 32)),
    }
    assert len(keys) == 6


NUMERIC = sorted(set(DTYPES) - {"BYTES"})


@given(st.sampled_from(NUMERIC), st.binary(min_size=8, max_size=8), st.data())
def test_one_flipped_bit_makes_another_key(datatype, raw, data):
    dtype = DTYPES[datatype]
    raw = bytes(byte & 1 for byte in raw) if datatype == "BOOL" else raw
    flipped = bytearray(raw)
    flipped[data.draw(st.integers(0, 7))] ^= 1
    one, other = (
        question(tensor(array=np.frombuffer(content, dtype), datatype=datatype))
        for content in (raw, bytes(flipped))
    )
    assert key(one) != key(other)


texts = st.lists(st.binary(max_size=4), min_size=2, max_size=2)


@given(texts, texts)
def test_texts_have_one_key_only_if_they_are_the_same(one, other):
    keys = [key(question(tensor(array=np.array([*row, b""], object)))) for row in (one, other)]
    assert (keys[0] == keys[1]) is (one == other)


# Looking up and keeping.


async def test_an_answer_is_given_again_as_one_to_the_new_question():
    kept, model = cache(), Model()
    first, from_cache = await kept.recall(exchange(question(id="one")), model)
    assert not from_cache
    again, from_cache = await kept.recall(exchange(question(id="two")), model)
    assert from_cache
    assert model.runs == 1
    assert (first.id, again.id) == ("one", "two")
    assert (again.model_name, again.model_version) == ("sepsis", "1")
    assert again.parameters == {"threshold": 0.5}
    assert again.outputs[0].name == "y"
    assert np.array_equal(again.outputs[0].array, first.outputs[0].array)
    assert kept.counters.hits == kept.counters.misses == kept.counters.stored == 1


@pytest.mark.parametrize("datatype", sorted(DTYPES))
async def test_every_datatype_comes_back_as_it_was(datatype):
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        array = np.array([[b"caf\xc3\xa9", b""]], object)
    else:
        array = np.array([[0, 1, 1]]).astype(dtype)
    output = tensor("y", array, datatype=datatype)
    kept = cache()

    async def answer(_):
        return InferResponse(model_name="m", model_version="1", outputs=[output])

    await kept.recall(exchange(), answer)
    again, from_cache = await kept.recall(exchange(), answer)
    assert from_cache
    (back,) = again.outputs
    assert (back.datatype, back.shape) == (datatype, array.shape)
    assert back.array.tolist() == array.tolist()


async def test_answers_are_shared_between_principals_only_where_the_site_says_so():
    for scope, runs in (("principal", 2), ("site", 1)):
        kept, model = cache(scope=scope), Model()
        for principal in ("dr.adams", "dr.baker", "dr.adams"):
            await kept.recall(exchange(principal=principal), model)
        assert model.runs == runs


BARRED = {
    "health data": {"data_class": DataClass.PHI},
    "a limited data set": {"data_class": DataClass.LIMITED},
    "a decision that forbids it": {"decision": decision("no_cache")},
    "a model without a digest": {"model": ModelInfo("sepsis", "1", None)},
    "an input that a device holds": {
        "request": question(Tensor(name="x", datatype="FP32", shape=(1, 3), array=None))
    },
    "a sequence": {"request": question(parameters={"sequence_id": 7})},
    "a large input": {"request": question(tensor(array=np.zeros(1 << 19, np.float32)))},
    "a large text": {"request": question(tensor(array=np.array([b"x" * (1 << 21)], object)))},
}


@pytest.mark.parametrize("case", BARRED)
async def test_what_must_not_be_kept_is_neither_kept_nor_looked_up(case):
    backend, model = memory(), Model()
    kept = cache(backend)
    for _ in range(2):
        _, from_cache = await kept.recall(exchange(**BARRED[case]), model)
        assert not from_cache
    assert model.runs == 2
    assert backend.size_bytes == 0
    assert kept.counters.barred == 2


async def test_health_data_is_kept_where_a_policy_permits_it():
    kept, model = cache(), Model()
    for _ in range(2):
        asked = exchange(data_class=DataClass.PHI, decision=decision("may_cache"))
        await kept.recall(asked, model)
    assert model.runs == 1


async def test_an_answer_about_synthetic_data_is_not_given_to_a_question_about_a_person():
    kept, model = cache(), Model()
    await kept.recall(exchange(), model)
    _, from_cache = await kept.recall(exchange(data_class=DataClass.PHI), model)
    assert not from_cache


async def test_failures_are_not_kept():
    backend, model = memory(), Model(failing=True)
    for _ in range(2):
        with pytest.raises(Refusal):
            await cache(backend).recall(exchange(), model)
    assert model.runs == 2
    assert backend.size_bytes == 0


async def test_an_answer_that_is_too_large_is_given_and_not_kept():
    backend, model = memory(), Model()
    kept = cache(backend, entry_limit_bytes=1024)

    async def large(asked):
        response = await model(asked)
        response.outputs = [tensor("y", np.zeros(1000, np.float32))]
        return response

    for _ in range(2):
        await kept.recall(exchange(), large)
    assert model.runs == 2
    assert backend.size_bytes == 0


async def test_what_comes_back_changed_or_of_another_key_is_a_miss_and_counted():
    class Tampered(MemoryBackend):
        async def get(self, key):
            value = await super().get(key)
            return None if value is None else self.change(value)

    for change in (
        lambda value: value[:-1],
        lambda value: b"",
        lambda value: bytes(len(value)),
        lambda value: value[:50] + bytes([value[50] ^ 1]) + value[51:],
    ):
        backend, model = Tampered(limit_bytes=1 << 20, lifetime_s=60), Model()
        backend.change = change
        kept = cache(backend)
        for _ in range(3):
            response, from_cache = await kept.recall(exchange(), model)
            assert not from_cache
            assert response.outputs
        assert model.runs == 3
        assert kept.counters.unreadable == 2


async def test_a_value_that_is_moved_under_another_key_does_not_open():
    backend = memory()
    kept, model = cache(backend), Model()
    asked, other = exchange(), exchange(question(tensor("other")))
    await kept.recall(asked, model)
    await backend.put(kept.question(other), await backend.get(kept.question(asked)))
    _, from_cache = await kept.recall(other, model)
    assert not from_cache
    assert kept.counters.unreadable == 1


async def test_memory_holds_neither_questions_nor_answers_nor_whose_they_are():
    backend = memory()
    kept = cache(backend)
    values = np.random.default_rng().normal(size=(4, 8)).astype(np.float32)
    canaries = Canaries()
    canaries.add_values(values)
    canaries.add_text("dr.canary", "input-canary", "output-canary")

    async def echo(asked):
        return InferResponse(
            model_name="m", model_version="1", outputs=[tensor("output-canary", values)]
        )

    asked = exchange(question(tensor("input-canary", values)), principal="dr.canary")
    await kept.recall(asked, echo)
    held = b"".join(k + v for k, (_, v) in backend._entries.items())
    assert len(held) > values.nbytes
    assert not list(canaries.matches(held))
    assert list(canaries.matches(held + values.tobytes()))


# The memory.


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


async def test_memory_forgets_when_the_time_is_over():
    clock = Clock()
    backend = memory(lifetime_s=10, clock=clock)
    await backend.put(b"k", b"v")
    clock.now += 9.99
    assert await backend.get(b"k") == b"v"
    clock.now += 0.01
    assert await backend.get(b"k") is None
    assert backend.size_bytes == 0


async def test_memory_lets_go_of_what_was_not_asked_for_longest():
    one = 1 + 100 + ENTRY_BYTES
    backend = memory(limit_bytes=3 * one)
    for name in (b"a", b"b", b"c"):
        await backend.put(name, bytes(100))
    assert await backend.get(b"a")
    await backend.put(b"d", bytes(100))
    assert [await backend.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [
        True,
        False,
        True,
        True,
    ]
    await backend.put(b"e", bytes(3 * one))
    assert backend.size_bytes == 3 * one
    await backend.put(b"e", bytes(3 * one - ENTRY_BYTES - 1))
    assert backend.size_bytes == 3 * one
    assert await backend.get(b"a") is None


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 900), st.floats(0, 4)), max_size=60),
    st.integers(300, 3000),
)
def test_memory_never_holds_more_than_its_limit(steps, limit):
    async def run():
        clock = Clock()
        backend = memory(limit_bytes=limit, lifetime_s=5, clock=clock)
        kept = {}
        for name, size, pause in steps:
            found = await backend.get(bytes([name]))
            assert found is None or found == kept[name]
            kept[name] = bytes([size % 256]) * size
            await backend.put(bytes([name]), kept[name])
            clock.now += pause
            assert backend.size_bytes <= limit
            held = backend._entries.items()
            assert backend.size_bytes == sum(len(k) + len(v) + ENTRY_BYTES for k, (_, v) in held)
        await backend.close()
        assert backend.size_bytes == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://127.0.0.1:1"},
        {"url": "redis://:secret@127.0.0.1:1"},
        {"url": "unix:///tmp/s?password=secret"},
        {"lifetime_s": 0},
        {"unknown": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        CacheSettings(**settings)


def test_it_is_off_unless_it_is_asked_for():
    assert CacheSettings().enabled is False


def test_the_settings_that_the_reference_shows_are_the_defaults():
    text = (Path(__file__).parents[2] / "docs/reference/response-cache.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    shown = tomllib.loads(block)["gateway"]["cache"]
    chosen = {"enabled": True, "url": shown["url"], "password": shown["password"]}
    assert CacheSettings(**shown) == CacheSettings(**chosen)
    assert shown.keys() == CacheSettings.model_fields.keys()


async def test_a_store_that_keeps_answers_too_long_cannot_give_them_out_again():
    now = 1000.0
    backend = memory(lifetime_s=1e9)
    settings = CacheSettings(enabled=True, lifetime_s=60.0)
    kept = ResponseCache(settings, SECRET, backend, clock=lambda: now)
    model = Model()
    await kept.recall(exchange(), model)
    now = 1059.9
    assert (await kept.recall(exchange(), model))[1] is True
    now = 1060.0
    assert (await kept.recall(exchange(), model))[1] is False
    assert model.runs == 2
