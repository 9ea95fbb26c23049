"""What is scraped from a gateway and a node: who may, what it says, and that it says it always.

Seen to fail: with `self.counters.count` left out of the recorder.
"""

import resource
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.nodes import NodeProcess
from support.sites import ROW

from audit.records import Action, Outcome, Problem, RequestRecord
from policies import Role
from secure_gateway.counting import RequestCounters

TABLE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
UNLIMITED = resource.RLIM_INFINITY


def scrape(server, **options):
    if isinstance(server, GatewayProcess):
        options.setdefault("token", server.token("ops", Role.OPERATOR))
    reply = call("GET", f"{server.url}/metrics", **options)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return list(text_string_to_metric_families(reply.body.decode()))


def value(families, name, **labels):
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    site = make_site(folder, gateway={"cache": {"enabled": True}})
    publish_linear(site, folder)
    with GatewayProcess(site, folder) as running:
        yield running


def test_only_those_whom_policy_lets_may_scrape_and_it_is_recorded(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        url = f"{gateway.url}/metrics"
        assert call("GET", url).status == 401
        refused = call("GET", url, token=gateway.token())
        assert refused.status == 403
        assert refused.json["type"] == "urn:bedside:problem:policy-refused"
        assert call("POST", url, token=gateway.token("ops", Role.OPERATOR)).status == 405
        scrape(gateway)
    records = records_of(site)
    assert [(r.action, r.status) for r in records] == [
        (Action.METRICS, status) for status in (401, 403, 405, 200)
    ]


def test_it_counts_requests_by_what_became_of_them(gateway):
    before = scrape(gateway)
    labels = {"action": "infer", "outcome": "served", "placement": "node:local", "problem": ""}
    name = "bedside_gateway_requests_total"
    for _ in range(3):
        assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
    assert call("POST", gateway.infer_url, token=gateway.token(), body=b"{").status == 400
    after = scrape(gateway)

    def grew(sample, **of):
        return value(after, sample, **of) - (value(before, sample, **of) or 0)

    assert grew(name, model="breast-cancer", **labels) == 3
    assert grew(name, problem="body-malformed", outcome="refused") == 1
    assert grew("bedside_gateway_request_duration_seconds_count", action="infer") == 4
    assert grew("bedside_gateway_request_duration_seconds_sum", action="infer") > 0
    assert grew("bedside_node_requests_total", model="breast-cancer", outcome="served") == 3
    assert grew("bedside_node_rows_total", model="breast-cancer") == 3
    assert grew("bedside_gateway_log_records") >= 4
    assert grew("bedside_gateway_cache_requests_total", result="barred") == 3


def test_it_says_what_runs_and_what_stands_ready(gateway):
    call("POST", gateway.infer_url, token=gateway.token(), body=ROW)
    families = scrape(gateway)
    info = {"model": "breast-cancer", "version": "1", "execution_provider": "CPUExecutionProvider"}
    assert value(families, "bedside_node_model_info", **info) == 1
    assert value(families, "bedside_node_ready") == 1
    assert value(families, "bedside_node_models", state="ready") == 1
    assert value(families, "bedside_node_queue_depth", model="breast-cancer") == 0
    assert value(families, "bedside_gateway_node_ready", placement="node:local") == 1
    assert value(families, "bedside_gateway_node_ejected", placement="node:local") == 0
    assert value(families, "bedside_gateway_requests_in_flight", model="breast-cancer") == 0
    assert value(families, "bedside_gateway_concurrency_limit", model="breast-cancer") > 0
    assert value(families, "bedside_gateway_connections_unread", why="shift") == 0
    assert value(families, "bedside_gateway_connections_unread", why="refused") == 0
    assert value(families, "bedside_gateway_device_channels") == 0
    assert value(families, "process_resident_memory_bytes") > 1e6


def test_a_full_disk_does_not_silence_it(gateway):
    try:
        resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (0, UNLIMITED))
        assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 503
        families = scrape(gateway)
        assert value(families, "bedside_gateway_log_writable") == 0
        assert value(families, "bedside_gateway_requests_unrecorded_total") >= 1
        assert call("GET", f"{gateway.url}/metrics", token=gateway.token()).status == 403
    finally:
        resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))
    assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
    assert value(scrape(gateway), "bedside_gateway_log_writable") == 1


def test_a_node_is_scraped_with_its_secret(gateway, tmp_path):
    (tmp_path / "secret").write_text("between-us\n")
    with NodeProcess(gateway.site, tmp_path, "node", secret=f"file:{tmp_path}/secret") as node:
        assert call("GET", f"{node.url}/metrics").status == 401
        families = scrape(node, token="between-us")
        assert value(families, "bedside_node_ready") == 1
        assert not [family for family in families if family.name.startswith("bedside_gateway")]


def test_which_device_it_was_is_in_no_label():
    counters = RequestCounters()
    for device in ("device:ward-3-tablet", "device:dr-adams"):
        counters.count(
            RequestRecord(
                time=datetime(2026, 11, 24, tzinfo=UTC),
                id=UUID(int=1),
                action=Action.INFER,
                outcome=Outcome.FAILED,
                status=503,
                problem=Problem.DEVICE_OFFLINE,
                placement=device,
                duration_us=10,
            )
        )
    assert counters.requests == {
        (Action.INFER, Outcome.FAILED, Problem.DEVICE_OFFLINE, "device", None): 2
    }


def test_the_reference_lists_every_metric_with_its_type_and_labels(gateway):
    call("POST", gateway.infer_url, token=gateway.token(), body=ROW)
    listed = {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("| `bedside_"):
            name, kind, labels, _ = (cell.strip() for cell in line.strip("|").split("|"))
            listed[name.strip("`")] = kind, {label.strip("` ") for label in labels.split(",")} - {""}
    served = {}
    for family in scrape(gateway):
        if family.name.startswith("bedside_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            served[name] = family.type, labels
    assert {name: kind for name, (kind, _) in listed.items()} == {
        name: kind for name, (kind, _) in served.items()
    }
    # A family without a sample shows no labels: nothing of its kind has happened here.
    assert [name for name, (_, labels) in served.items() if labels and labels != listed[name][1]] == []
