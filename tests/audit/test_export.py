"""What leaves for a SIEM: every record, in order, at least once, in the published forms.

Seen to fail: without `_await_acknowledged` a receiver that hangs up before it was sent anything takes
records to nowhere; without the wait for its end one that dies with them unread does.
"""

import asyncio
import hashlib
import json
import threading
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support import hospital, siem
from support.certificates import Authority

from audit import Log, NoteVerifier
from audit.errors import ExportBusy
from audit.export import (
    Destination,
    Exporter,
    ExportSettings,
    SyslogFormat,
    SyslogSender,
    export_states,
    tls_context,
)
from audit.export.otlp import OtlpLogs
from audit.follow import DeliveryFailed, Entry
from audit.records import Flag, Outcome, Problem, encode
from audit.source import LogSource

FORM = SyslogFormat(hostname="gw-1.clinic.example", enterprise=32473)
ORIGIN = "clinic/gateway-1"


def entries(records):
    return [Entry(ORIGIN, number, record, encode(record)) for number, record in enumerate(records)]


def everything():
    return entries([*hospital.requests(60), *hospital.coordination()])


def test_every_type_of_record_is_a_syslog_message_by_the_letter():
    stream = FORM.frame(everything())
    messages, rest = siem.frames(stream)
    assert rest == b""
    parsed = [siem.parse(message) for message in messages]
    for message, entry in zip(parsed, everything(), strict=True):
        assert (message.facility, message.app, message.process) == (13, "bedside", ORIGIN)
        assert message.hostname == "gw-1.clinic.example"
        assert message.time == entry.record.time
        assert message.place == (ORIGIN, entry.number)
        assert message.id == json.loads(entry.leaf)["type"]
        # The message is what the log hashed.
        assert message.text == entry.leaf
        assert hashlib.sha256(b"\0" + message.text).digest()
    assert {message.id for message in parsed} >= {"request", "device", "release", "job", "policy"}
    assert set(parsed[0].data) == {"bedside@32473"}


def test_what_alerts_are_written_on_is_in_the_structured_data(request_record):
    change = {
        "outcome": Outcome.REFUSED,
        "status": 403,
        "problem": Problem.POLICY_REFUSED,
        "policies": ("gdpr-transfer", "base-model-roles"),
        "emergency": True,
    }
    (entry,) = entries([msgspec.structs.replace(request_record, **change)])
    message = siem.parse(FORM.message(entry))
    ((_, parameters),) = message.data.items()
    assert ("policies", "gdpr-transfer") in parameters
    assert ("policies", "base-model-roles") in parameters
    assert message.param("problem") == "policy-refused"
    assert message.param("emergency") == "true"
    assert message.severity == 5
    grave = msgspec.structs.replace(request_record, flags=(Flag.BREAK_GLASS,))
    assert siem.parse(FORM.message(*entries([grave]))).severity == 4
    assert siem.parse(FORM.message(*entries([request_record]))).severity == 6


@given(st.text(alphabet='abc"\\] =[\n', max_size=12))
def test_no_value_can_end_its_parameter(text):
    escaped = text.translate(__import__("audit.export.syslog", fromlist=["x"])._ESCAPED)
    assert siem.PARAM.fullmatch(f' x="{escaped}"'.encode())


async def test_a_batch_counts_once_the_receiver_read_it_to_the_end():
    batch = everything()[:20]
    with siem.SyslogReceiver() as receiver:
        send = SyslogSender("127.0.0.1", receiver.port, FORM, tls=None, timeout_s=10)
        for drop in ("hang-up", "unread"):
            receiver.drops.append(drop)
            with pytest.raises(DeliveryFailed, match="did not take it"):
                await send(batch)
        assert await send(batch) == 0
        receiver.taken.until(lambda messages: len(messages) == 20)
    with pytest.raises(DeliveryFailed, match="ConnectionRefusedError"):
        await send(batch)


async def test_over_tls_the_receiver_is_who_it_says_and_so_is_the_sender(tmp_path):
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate = ours.issue("gw-1")
    batch = everything()[:20]

    def sender(receiver, host, *files):
        return SyslogSender(host, receiver.port, FORM, tls=tls_context(*files), timeout_s=10)

    with siem.SyslogReceiver(ours.server(clients=True)) as receiver:
        await sender(receiver, "localhost", ours.ca, *certificate)(batch)
        receiver.taken.until(lambda messages: len(messages) == 20)
        for refused in (
            sender(receiver, "localhost", theirs.ca, *certificate),
            sender(receiver, "127.0.0.1", ours.ca, *certificate),
            sender(receiver, "localhost", ours.ca),
            sender(receiver, "localhost", ours.ca, *theirs.issue("gw-2")),
        ):
            with pytest.raises(DeliveryFailed):
                await refused(batch)
        receiver.drops.append("unread")
        with pytest.raises(DeliveryFailed):
            await sender(receiver, "localhost", ours.ca, *certificate)(batch * 50)
    assert len(receiver.taken.messages) == 20


async def test_otlp_carries_the_fields_and_honours_what_the_receiver_answers():
    batch = everything()
    with siem.OtlpReceiver() as receiver:
        sink = OtlpLogs(receiver.url, token="let-me-in", tls=None, timeout_s=10)
        receiver.answers += [503, 400, 307]
        for status in (503, 400, 307):
            with pytest.raises(DeliveryFailed, match=f"status {status}"):
                await sink(batch)
        receiver.rejects = 2
        assert await sink(batch) == 2
        await sink.close()
    assert receiver.headers[0]["content-type"] == "application/x-protobuf"
    assert receiver.headers[0]["authorization"] == "Bearer let-me-in"
    for (resource, record), entry in zip(receiver.taken.messages, batch, strict=True):
        assert siem.attributes(resource) == {
            "service.name": "bedside",
            "service.namespace": "clinic",
            "service.instance.id": "gateway-1",
        }
        told = siem.attributes(record)
        assert (told["bedside.entry.log"], told["bedside.entry.number"]) == (ORIGIN, entry.number)
        assert record.body.string_value.encode() == entry.leaf
        assert record.event_name == f"bedside.{told['bedside.type']}"
        assert record.time_unix_nano == int(entry.record.time.timestamp() * 1e6) * 1000
    with_place = next(e for e in batch if getattr(e.record, "candidates", ()))
    told = siem.attributes(receiver.taken.messages[with_place.number][1])
    assert told["bedside.candidates"][0].startswith("node:")
    assert isinstance(told["bedside.policies"], list)


class Logs:
    """Logs that a test writes, as a site has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: dict[str, Ed25519PrivateKey] = {}

    async def add(self, name, records):
        key = self.keys.setdefault(name, Ed25519PrivateKey.generate())
        log = await Log.open(self.folder / name, origin=f"clinic/{name}", key=key)
        await asyncio.gather(*(log.append(encode(record)) for record in records))
        await log.close()

    def sources(self):
        return [
            LogSource(
                folder=self.folder / name, verifier=NoteVerifier(f"clinic/{name}", key.public_key())
            )
            for name, key in self.keys.items()
        ]


@pytest.fixture
async def logs(tmp_path):
    return Logs(tmp_path / "logs")


def exporter(logs, tmp_path, *receivers, history=True):
    fast = {"interval_s": 0.01, "retry_s": 0.01, "retry_max_s": 0.05}
    destinations = []
    for receiver in receivers:
        if isinstance(receiver, siem.OtlpReceiver):
            sink = OtlpLogs(receiver.url, token=None, tls=None, timeout_s=10)
            name = "otlp"
        else:
            sink = SyslogSender("127.0.0.1", receiver.port, FORM, tls=None, timeout_s=10)
            name = "syslog"
        destinations.append(Destination(name=name, sink=sink, history=history, **fast))
    return Exporter(tmp_path / "export", logs.sources, destinations, logs_every_s=0.02)


async def until(receiver, condition):
    await asyncio.to_thread(receiver.taken.until, condition)


async def kept(logs, tmp_path, *names):
    """Wait until every destination's place says that it took everything."""
    pause = threading.Event()
    while any(state.lag for state in export_states(tmp_path / "export", names, logs.sources())):
        await asyncio.to_thread(pause.wait, 0.01)


def places(receiver):
    return [message.place for message in receiver.taken.messages]


async def test_each_destination_gets_every_log_also_one_begun_later_and_goes_on_after_a_stop(
    logs, tmp_path
):
    asked = hospital.requests(300)[:300]
    await logs.add("gateway-1", asked)
    with siem.SyslogReceiver() as syslog, siem.OtlpReceiver() as otlp:
        otlp.answers += [503, 429]
        first = exporter(logs, tmp_path, syslog, otlp)
        await first.start()
        with pytest.raises(ExportBusy):
            await exporter(logs, tmp_path, syslog).start()
        await until(syslog, lambda messages: len(messages) == 300)
        await logs.add("reviews", asked[:3])
        await until(syslog, lambda messages: len(messages) == 303)
        await until(otlp, lambda messages: len(messages) == 303)
        await kept(logs, tmp_path, "syslog", "otlp")
        await first.close()
        await logs.add("gateway-1", asked[:10])
        states = {
            (one.destination, one.log): (one.next, one.lag)
            for one in export_states(tmp_path / "export", ["syslog", "otlp"], logs.sources())
        }
        assert states["syslog", "clinic/gateway-1"] == states["otlp", "clinic/gateway-1"] == (300, 10)
        assert states["syslog", "clinic/reviews"] == (3, 0)
        second = exporter(logs, tmp_path, syslog, otlp)
        await second.start()
        await until(syslog, lambda messages: len(messages) == 313)
        await until(otlp, lambda messages: len(messages) == 313)
        await second.close()
    assert [number for log, number in places(syslog) if log == ORIGIN] == list(range(310))
    assert not syslog.taken.problems


async def test_without_history_it_begins_with_what_is_recorded_after_its_first_start(logs, tmp_path):
    asked = hospital.requests(20)[:20]
    await logs.add("gateway-1", asked)
    with siem.SyslogReceiver() as receiver:
        first = exporter(logs, tmp_path, receiver, history=False)
        await first.start()
        await first.close()
        # Both came while nothing was exported, and after it was first.
        await logs.add("gateway-1", asked[:2])
        await logs.add("reviews", asked[:1])
        second = exporter(logs, tmp_path, receiver, history=False)
        await second.start()
        await until(receiver, lambda messages: len(messages) == 3)
        await second.close()
    assert sorted(places(receiver)) == [(ORIGIN, 20), (ORIGIN, 21), ("clinic/reviews", 0)]


async def test_what_the_receiver_refuses_for_good_is_counted_and_kept(logs, tmp_path):
    await logs.add("gateway-1", hospital.requests(5)[:5])
    with siem.OtlpReceiver() as receiver:
        receiver.rejects = 2
        running = exporter(logs, tmp_path, receiver)
        await running.start()
        await until(receiver, lambda messages: len(messages) == 5)
        await kept(logs, tmp_path, "otlp")
        await running.close()
    (state,) = export_states(tmp_path / "export", ["otlp"], logs.sources())
    assert (state.next, state.refused) == (5, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"syslog": {"address": "udp://siem:514"}},
        {"syslog": {"address": "tcp://siem"}},
        {"syslog": {"address": "tcp://siem:70000"}},
        {"syslog": {"address": "tls://user@siem:6514"}},
        {"syslog": {"address": "tcp://siem:514", "ca": "/ca.pem"}},
        {"syslog": {"address": "tls://siem:6514", "key": "/key.pem"}},
        {"otlp": {"url": "https://siem/v1/logs?token=1"}},
        {"otlp": {"url": "ftp://siem/v1/logs"}},
    ],
)
def test_an_address_that_is_none_is_refused(settings):
    with pytest.raises(ValidationError):
        ExportSettings(**settings)


@pytest.mark.parametrize(
    "message",
    [
        b"<110>1 2026-11-24T08:30:00Z h bedside p request no-data",
        b'<110>1 2026-11-24T08:30:00Z h bedside p request [x@1 a="]"] y',
        b"<192>1 2026-11-24T08:30:00Z h bedside p request - y",
        b"<110>1 24 Nov h bedside p request - y",
    ],
)
def test_the_strict_parser_is_strict(message):
    with pytest.raises(ValueError, match=r"header|structured"):
        siem.parse(message)
