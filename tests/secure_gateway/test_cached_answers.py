"""The response cache behind a real gateway: what may be kept is run once, and recorded each time.

Seen to fail: without the cache in `Pipeline`, the second answer says nothing of it; with the principal
left out of the key, another caller is given the first one's.
"""

import pytest
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.sites import ROW

from audit.records import Action, Flag, Outcome

KEPT = {"Bedside-Data-Class": "synthetic"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    site = make_site(folder, gateway={"cache": {"enabled": True}})
    publish_linear(site, folder)
    with GatewayProcess(site, folder) as gateway:
        yield site, gateway


def ask(gateway, headers, principal="dr.adams", body=ROW):
    reply = call("POST", gateway.infer_url, token=gateway.token(principal), headers=headers, body=body)
    assert reply.status == 200
    return (
        reply.json["outputs"],
        "bedside_from_cache" in reply.json["parameters"],
        reply.json["parameters"],
    )


def test_what_may_be_kept_is_given_again_to_the_same_caller_and_recorded(served):
    site, gateway = served
    first, kept, _ = ask(gateway, KEPT)
    again, repeated, about = ask(gateway, KEPT)
    assert (kept, repeated) == (False, True)
    assert again == first
    assert about["bedside_placement"] == "node:local"
    assert not ask(gateway, KEPT, principal="dr.baker")[1]
    other = {"inputs": [{**ROW["inputs"][0], "data": [0.3, 0.2, 0.1]}]}
    assert not ask(gateway, KEPT, body=other)[1]
    # PHI is never kept unless a policy says so, and none of the packs' does.
    assert [ask(gateway, {})[1] for _ in range(2)] == [False, False]
    gateway.stop()
    records = [record for record in records_of(site) if record.action is Action.INFER]
    assert [Flag.FROM_CACHE in record.flags for record in records] == [False, True, *[False] * 4]
    assert all(record.outcome is Outcome.SERVED and record.rows == 1 for record in records)
