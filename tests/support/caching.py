"""Exchanges, decisions and a counting model, for tests of the response cache."""

from datetime import UTC, datetime
from uuid import uuid4

import numpy as np

from audit.records import Action, Problem
from inference_node import InferRequest, InferResponse, Tensor
from inference_node.oip import datatype_of
from policies import DataClass, Facts, Principal, Role
from policies.decision import Verdict, combine
from policies.validation import PolicyText
from secure_gateway.cache import CacheSettings, MemoryBackend, ResponseCache
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Call, Exchange, ModelInfo

SECRET = bytes(range(32))
MODEL = ModelInfo("sepsis", "1", "ab" * 32)


def memory(**changes):
    return MemoryBackend(**{"limit_bytes": 1 << 20, "lifetime_s": 60.0, **changes})


def cache(backend=None, secret=SECRET, **settings):
    backend = backend or memory()
    return ResponseCache(CacheSettings(enabled=True, **settings), secret, backend)


def tensor(name="x", array=None, datatype=None):
    array = np.arange(6, dtype=np.float32).reshape(2, 3) if array is None else np.asarray(array)
    return Tensor(name=name, datatype=datatype or datatype_of(array), shape=array.shape, array=array)


def question(*tensors, **changes):
    return InferRequest(inputs=list(tensors) or [tensor()], **changes)


def decision(*obligations, others=None):
    """A decision that permits one node with `obligations`, and another with `others` if given."""

    def verdict(place, names):
        text = PolicyText(
            id=f"policy-{place}",
            title="t",
            citation="c",
            effect="permit",
            obligations=tuple(names),
            path="",
            line=0,
        )
        return Verdict(placement=f"node:{place}", permitted=True, policies=(text,))

    verdicts = [verdict("a", obligations)]
    if others is not None:
        verdicts.append(verdict("b", others))
    return combine(tuple(verdicts), "cd" * 32)


def facts(data_class=DataClass.SYNTHETIC):
    return Facts(
        roles=frozenset({Role.CLINICIAN}), model="sepsis", jurisdiction="US-CA", data_class=data_class
    )


def exchange(request=None, *, principal="dr.adams", data_class=DataClass.SYNTHETIC, **changes):
    call = Call(action=Action.INFER, authorization=None, claims=NO_CLAIMS, started_ns=0)
    made = Exchange(call, uuid4(), datetime.now(UTC))
    made.principal = Principal(id=principal, roles=frozenset({Role.CLINICIAN}))
    made.request = request or question()
    made.model = MODEL
    made.facts = facts(data_class)
    made.decision = decision()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class Model:
    """Counts its runs and answers each with another value, so that a repeat shows."""

    def __init__(self, *, failing=False):
        self.runs = 0
        self.failing = failing

    async def __call__(self, asked):
        self.runs += 1
        if self.failing:
            raise Refusal(Problem.EXECUTION_FAILED, "The node could not run the model.")
        output = tensor("y", np.array([[self.runs + 0.123456]], np.float32))
        return InferResponse(
            model_name="sepsis",
            model_version="1",
            id=asked.request.id,
            outputs=[output],
            parameters={"threshold": 0.5},
        )
