"""Promise 3 for a whole site: thousands of requests to everything that listens, and crashes.

Every path of every API, every method of gRPC, the device channel, the witness and a node's own port
are sent canaries, at debug level, while processes abort and are killed. Then every byte that was
written is searched: data, temporary files, output, what a SIEM received, metrics, core dumps.

Seen to fail: each place of the second test is a leak of its own, which the search must find.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.canaries import TAG, Planter
from support.flood import Flood, forged
from support.grpc import Caller, row
from support.nodes import NodeProcess
from support.siem import OtlpReceiver, SyslogReceiver
from support.sites import free_port

from audit.export import ExportSettings
from audit.settings import WitnessSettings
from bedside.children import Child, bedside_command
from bedside.demo.canaries import written_files
from bedside.up import environment_of
from bedside_client import SqliteData
from bedside_client.agent import Agent
from bedside_client.enrolment import enroll
from console import ConsoleSettings
from coordinator import CoordinatorSettings
from inference_node.schema import message_class, method_names
from policies import Role
from secure_gateway import NodeEntry

REQUESTS = 2500


class Hospital:
    """A whole site in processes of its own, whose temporary folder and receivers are watched."""

    def __init__(self, folder: Path, syslog: SyslogReceiver, otlp: OtlpReceiver) -> None:
        self.folder, self.syslog, self.otlp = folder, syslog, otlp
        self.plant = Planter()
        coordinator, node = f"http://127.0.0.1:{free_port()}", free_port()
        self.site = make_site(
            folder,
            jurisdiction="US-CA",
            gateway={
                "grpc_port": free_port(),
                "consent": {"registry": True},
                "cache": {"enabled": True},
                "registry_poll_s": 0.2,
                "nodes": (NodeEntry(id="local", jurisdiction="US-CA", url=f"http://127.0.0.1:{node}"),),
            },
            coordinator=CoordinatorSettings(url=coordinator, port=int(coordinator.rpartition(":")[2])),
            console=ConsoleSettings(port=free_port()),
            witness=WitnessSettings(name="auditor.example/w1", port=free_port()),
            export=ExportSettings(
                syslog={"address": syslog.address, "interval_s": 0.1},
                otlp={"url": otlp.url, "interval_s": 0.1},
            ),
        )
        publish_linear(self.site, folder)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.gateway = GatewayProcess(self.site, folder, {"TMPDIR": str(self.temporary)})
        self.environment = {
            **environment_of(self.site.config),
            "TMPDIR": str(self.temporary),
            # What devices are told.
            "BEDSIDE_COORDINATOR__GATEWAY_URL": self.gateway.url,
        }
        self.node = NodeProcess(self.site, folder, "node", f"127.0.0.1:{node}")
        self.coordinator_url = coordinator
        self.witness_url = f"http://127.0.0.1:{self.site.config.witness.port}"
        self.console_url = f"http://127.0.0.1:{self.site.config.console.port}"
        self.children: dict[str, Child] = {}
        self.metrics: list[bytes] = []

    def __enter__(self):
        for name, *command in (
            ("coordinator", "coordinator"),
            ("console", "console", "serve"),
            ("witness", "witness"),
            ("export", "audit", "export"),
        ):
            self.children[name] = Child(
                name,
                bedside_command(*command),
                log=self.folder / f"{name}.log",
                environment=self.environment,
            )
        self.node.start()
        for child in self.children.values():
            child.wait_for(lambda line: "ready" in line, 90)
        self.gateway.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        self.gateway.stop()
        for child in self.children.values():
            child.stop()
        self.node.stop()

    def token(self, name: str, *roles: Role) -> str:
        return self.site.token_issuer().issue(name, roles, lifetime_s=3600)

    def tokens(self) -> list[str]:
        everyone = [
            self.token("dr.adams", Role.CLINICIAN),
            self.token("it.ward", Role.OPERATOR, Role.ENGINEER),
            self.token("c.officer", Role.COMPLIANCE),
            self.token("b.keller", Role.BILLING),
        ]
        return [*everyone, forged(self.plant), self.plant.text(), ""]

    def flood(self, url: str, openapi: str | None = None, seed: int = 0) -> Flood:
        document = (
            {"paths": {}} if openapi is None else call("GET", openapi, token=self.tokens()[0]).json
        )
        return Flood(url, document, self.tokens(), self.plant, seed)

    def scrape(self) -> None:
        for url, token in ((self.gateway.url, self.tokens()[1]), (self.node.url, None)):
            reply = call("GET", f"{url}/metrics", token=token)
            assert reply.status == 200
            self.metrics.append(reply.body)

    def exported(self) -> list[bytes]:
        return [b"".join(receiver.taken.raw) for receiver in (self.syslog, self.otlp)]


@pytest.fixture
def hospital(tmp_path):
    with (
        SyslogReceiver() as syslog,
        OtlpReceiver() as otlp,
        Hospital(tmp_path, syslog, otlp) as running,
    ):
        yield running


def filled(message, plant, depth=0):
    """Put canaries into every field of a protobuf message, and into those of its parts."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                getattr(message, field.name)[plant.text()].SetInParent()
        elif field.message_type is not None:
            if depth < 3 and not field.containing_oneof:
                part = getattr(message, field.name)
                filled(part.add() if field.is_repeated else part, plant, depth + 1)
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            value = plant.text() if field.type == FieldDescriptor.TYPE_STRING else plant.text().encode()
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def call_every_grpc_method(hospital, rounds):
    plant = hospital.plant
    answers = []
    for token in hospital.tokens() * rounds:
        metadata = [("bedside-subject", plant.text()), ("x-patient-name", plant.text())]
        # An empty or strange token is metadata like any other.
        with Caller(hospital.gateway.grpc_address, token or None) as caller:
            for method in method_names():
                if method == "ModelStreamInfer":
                    continue
                message = filled(message_class(f"{method}Request")(), plant)
                answers.append(caller.call(method, message, metadata))
                answers.append(caller.call(method, plant.text().encode(), metadata))
            answers.append(caller.infer(row(plant.values(), id=plant.text()), metadata))
            answers.append(caller.infer(row(plant.values()), metadata, timeout_s=0.001))
            answers.append(caller.call(f"/{plant.text()}/{plant.text()}", plant.text().encode()))
    for answer in answers:
        if answer.message is not None and hasattr(answer.message, "raw_output_contents"):
            for content in answer.message.raw_output_contents:
                plant.canaries.add_values(np.frombuffer(content, np.float32))
    return [f"{answer.details} {answer.trailing}" for answer in answers]


async def speak_as_a_device(hospital):
    """Enrol a device, answer from its data, and say on its channel what no device says."""
    plant, words = hospital.plant, [hospital.plant.text() for _ in range(3)]
    codes = call(
        "POST",
        f"{hospital.coordinator_url}/v1/devices/codes",
        token=hospital.tokens()[1],
        body={"jurisdiction": "US-CA", "subjects": words},
    )
    state = await enroll(hospital.coordinator_url, codes.json["code"], hospital.folder / "device")
    SqliteData(state.data).write([(word, plant.values(), 1) for word in words])
    ready = asyncio.Event()
    events = []

    def event(name, fields):
        events.append((name, fields))
        if name == "connected":
            ready.set()

    agent = asyncio.create_task(Agent(state, event=event).run(("breast-cancer",)))
    await asyncio.wait_for(ready.wait(), 60)
    asked = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32"}]}
    served = 0
    for word in words * 4:
        headers = {"Bedside-Subject": word, "X-Patient-Name": plant.text()}
        reply = await asyncio.to_thread(
            call,
            "POST",
            hospital.gateway.infer_url,
            token=hospital.tokens()[0],
            headers=headers,
            body=asked,
        )
        if reply.status == 200:
            served += 1
            plant.canaries.add_values(np.array(reply.json["outputs"][0]["data"], np.float32))
    agent.cancel()
    await asyncio.gather(agent, return_exceptions=True)
    for bearer in (state.assertion(), hospital.tokens()[0], plant.text()):
        for frame in (
            plant.text(),
            plant.text().encode(),
            f'{{"{plant.text()}": "{plant.text()}"}}',
            "{",
        ):
            await say(hospital, bearer, frame)
    assert served
    return events


async def say(hospital, token, frame):
    url = f"{hospital.gateway.url}/v1/channel?patient={hospital.plant.text()}"
    headers = {"Authorization": f"Bearer {token}", "Origin": hospital.plant.text()}
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                url, headers=headers, timeout=aiohttp.ClientWSTimeout(ws_close=1)
            ) as channel,
        ):
            for _ in range(3):
                await (channel.send_str if isinstance(frame, str) else channel.send_bytes)(frame)
            with contextlib.suppress(TimeoutError):
                await channel.receive(timeout=1)


def leave_in_the_middle(hospital):
    """Connections that break off in a request, and one that says nothing for too long."""
    for url in (
        hospital.gateway.url,
        hospital.node.url,
        hospital.coordinator_url,
        hospital.console_url,
    ):
        port = int(url.rpartition(":")[2])
        for begun in (
            b"POST /v2/models/breast-cancer/infer HTTP/1.1\r\nHost: x\r\nX-Patient: %s\r\n",
            b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n",
            b"POST /v1/work HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n%s",
            b"%s\r\n\r\n",
            b"\x16\x03\x01\x02%s",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(begun % hospital.plant.text().encode())


def crash_under_load(hospital, number, seed):
    flood = hospital.flood(hospital.gateway.url, f"{hospital.gateway.url}/openapi.json", seed)
    loading = threading.Thread(target=flood.run, args=(200,))
    loading.start()
    while len(flood.replies) < 40:
        time.sleep(0.01)
    os.kill(hospital.gateway.child.pid, number)
    loading.join()
    hospital.gateway.stop()
    hospital.gateway.start()
    return flood


async def test_nothing_that_was_sent_to_anything_is_found_anywhere(hospital, tmp_path):
    here = set(os.listdir())
    gateway, coordinator = hospital.gateway, hospital.coordinator_url
    events = await speak_as_a_device(hospital)
    floods = {
        "gateway": hospital.flood(gateway.url, f"{gateway.url}/openapi.json", 1),
        "node": hospital.flood(hospital.node.url, f"{gateway.url}/openapi.json", 2),
        "coordinator": hospital.flood(coordinator, f"{coordinator}/openapi.json", 3),
        "witness": hospital.flood(hospital.witness_url, None, 4),
        "console": hospital.flood(hospital.console_url, None, 5),
    }
    said = await asyncio.to_thread(call_every_grpc_method, hospital, 1)
    for name, count in (
        ("gateway", REQUESTS), ("node", 300), ("coordinator", 500), ("witness", 60), ("console", 100)
    ):  # fmt: skip
        await asyncio.to_thread(floods[name].run, count)
    leave_in_the_middle(hospital)
    hospital.scrape()
    for number in (signal.SIGABRT, signal.SIGKILL):
        floods[number] = await asyncio.to_thread(crash_under_load, hospital, number, int(number))
    hospital.scrape()
    os.kill(hospital.node.child.pid, signal.SIGABRT)
    os.kill(hospital.children["console"].pid, signal.SIGKILL)

    replies = [reply for flood in floods.values() for reply in flood.replies]
    assert len(replies) > REQUESTS
    assert sum(status == 200 for _, status, _ in replies) > 100
    assert {status for _, status, _ in replies if status >= 500} <= {501, 503, 504}
    gateway.stop()
    size = sum(len(records_of(hospital.site, name)) for name in ("gateway-1", "coordinator"))
    for receiver in (hospital.syslog, hospital.otlp):
        await asyncio.to_thread(receiver.taken.until, lambda messages: len(messages) >= size)
    hospital.stop()

    found = hospital.plant.canaries
    echoes = {place for place, _, content in replies if list(found.matches(content))}
    assert not {place for place in echoes if "/infer" not in place and "/work" not in place}
    assert not list(found.matches("\n".join([*said, str(events)]).encode()))
    written = written_files(tmp_path, written_files(tmp_path / "device"))
    assert {f"{name}.log" for name in (*hospital.children, "node", "gateway")} <= {
        p.name for p in written
    }
    assert list(found.search(written)) == []
    for sent in (*hospital.exported(), *hospital.metrics):
        assert len(sent) > 1000
        assert not list(found.matches(sent))
    assert {name for name in set(os.listdir()) - here if "core" in name} == set()


@pytest.fixture
def leaking(tmp_path):
    """A gateway that leaks what it was sent in every place where something can be written."""
    with SyslogReceiver() as syslog, OtlpReceiver() as otlp:
        export = ExportSettings(syslog={"address": syslog.address}, otlp={"url": otlp.url})
        site = make_site(tmp_path, export=export)
        publish_linear(site, tmp_path)
        (tmp_path / "tmp").mkdir()
        environment = {**environment_of(site.config), "TMPDIR": str(tmp_path / "tmp")}
        child = Child(
            "gateway",
            [sys.executable, "-m", "support.leaky_gateway"],
            log=tmp_path / "gateway.log",
            environment={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        child.wait_for(lambda line: "ready" in line, 60)
        yield site, syslog, otlp
        child.stop()


def test_a_leak_is_found_in_each_place_where_something_is_written(leaking, tmp_path):
    site, syslog, otlp = leaking
    plant = Planter()
    port = site.config.gateway.port
    clinician = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)
    operator = site.token_issuer().issue("it.ward", [Role.OPERATOR], lifetime_s=600)
    reply = call(
        "POST",
        f"http://127.0.0.1:{port}/v2/models/breast-cancer/infer",
        token=clinician,
        headers={"Bedside-Subject": plant.text()},
        body=plant.row(),
    )
    assert reply.status == 200
    metrics = call("GET", f"http://127.0.0.1:{port}/metrics", token=operator).body
    export = Child(
        "export",
        bedside_command("audit", "export"),
        log=tmp_path / "export.log",
        environment=environment_of(site.config),
    )
    for receiver in (syslog, otlp):
        receiver.taken.until(lambda messages: len(messages) > 1)
    export.stop()
    found = [leak.path for leak in plant.canaries.search(written_files(tmp_path))]
    assert {path.relative_to(tmp_path).parts[0] for path in found} == {"gateway.log", "site", "tmp"}
    assert {"leak.sqlite", "leak.json.gz"} <= {path.name for path in found}
    assert {path.suffix for path in found} >= {".wal", ".tmp"}
    assert any("tile" in path.parts for path in found)
    lines = [line for line in (tmp_path / "gateway.log").read_text().splitlines() if TAG in line]
    assert [sum(kind in line for line in lines) for kind in ("output ", "error ", ": message ")] == [
        1
    ] * 3
    sent = [b"".join(receiver.taken.raw) for receiver in (syslog, otlp)]
    for bytes_ in (*sent, metrics):
        assert list(plant.canaries.matches(bytes_))
