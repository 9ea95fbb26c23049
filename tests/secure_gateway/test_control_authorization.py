"""Placements and receipts are API actions like any other: policy says who may ask for them.

Seen to fail: without `PLACEMENTS_ASK` in the pipeline, and without `_may_send` in the control routes,
each of the two is served.
"""

import pytest
from support import GatewayProcess, call, make_site, publish_linear, records_of

from audit.records import Action, Outcome, Problem
from policies import Role


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("control")
    site = make_site(folder)
    publish_linear(site, folder)
    with GatewayProcess(site, folder) as gateway:
        yield site, gateway


def test_a_role_that_uses_no_models_may_neither_ask_nor_report(served):
    site, gateway = served
    url = f"{gateway.url}/v1"
    question = {"model": "breast-cancer", "data_class": "deidentified"}
    placed = call("POST", f"{url}/placements", token=gateway.token(), body=question)
    assert placed.status == 200
    receipt = {
        "id": placed.json["id"],
        "token": placed.json["token"],
        "model_digest": placed.json["model_digest"],
        "rows": 1,
        "duration_us": 1,
        "outcome": "served",
    }
    operator = gateway.token("o.perator", Role.OPERATOR)
    for path, body in (("placements", question), ("receipts", receipt)):
        refused = call("POST", f"{url}/{path}", token=operator, body=body)
        assert refused.status == 403
        assert refused.json["type"] == "urn:bedside:problem:policy-refused"
    assert call("POST", f"{url}/receipts", token=gateway.token(), body=receipt).status == 200
    gateway.stop()
    found = [(record.action, record.outcome, record.problem) for record in records_of(site)]
    assert found == [
        (Action.PLACE, Outcome.SERVED, None),
        (Action.PLACE, Outcome.REFUSED, Problem.POLICY_REFUSED),
        (Action.RECEIPT, Outcome.REFUSED, Problem.POLICY_REFUSED),
        (Action.RECEIPT, Outcome.SERVED, None),
    ]
