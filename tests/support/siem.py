"""Receivers of exported records, written from the specifications: RFC 5424, 5425 and 6587, and OTLP.

The parser follows the grammar of RFC 5424 section 6 to the letter, and takes nothing else.
"""

import contextlib
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

# HEADER = PRI VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID
HEADER = re.compile(
    rb"<(?P<pri>0|[1-9][0-9]{0,2})>(?P<version>[1-9][0-9]{0,2}) "
    rb"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) "
    rb"(?P<hostname>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
)
SD_NAME = rb"[!#-<>-\\^-~]{1,32}"
VALUE = rb'(?:[^"\\\]]|\\["\\\]])*'
PARAM = re.compile(rb' (?P<name>%s)="(?P<value>%s)"' % (SD_NAME, VALUE))
ELEMENT = re.compile(rb'\[(?P<id>%s)(?P<params>(?: %s="%s")*)\]' % (SD_NAME, SD_NAME, VALUE))
CLOSE_WAIT = 8
FRAME = re.compile(rb"(?P<length>[1-9][0-9]*) ")


@dataclass(frozen=True)
class Message:
    facility: int
    severity: int
    time: datetime
    hostname: str
    app: str
    process: str
    id: str
    data: dict[str, list[tuple[str, str]]]
    text: bytes

    def param(self, name: str) -> str:
        ((_, parameters),) = self.data.items()
        (value,) = (value for key, value in parameters if key == name)
        return value

    @property
    def place(self) -> tuple[str, int]:
        return self.param("log"), int(self.param("number"))


def parse(message: bytes) -> Message:
    """Return what one message says; raises ValueError for what RFC 5424 does not allow."""
    head = HEADER.match(message)
    if head is None or int(head["pri"]) > 191 or head["version"] != b"1":
        raise ValueError("no RFC 5424 header")
    data, place = {}, head.end()
    while element := ELEMENT.match(message, place):
        name = element["id"].decode()
        if name in data:
            raise ValueError("an SD-ID stands there twice")
        data[name] = [
            (one["name"].decode(), re.sub(r'\\(["\\\]])', r"\1", one["value"].decode()))
            for one in PARAM.finditer(element["params"])
        ]
        place = element.end()
    if not data and message[place : place + 1] != b"-":
        raise ValueError("no structured data")
    if data and message[place : place + 1] not in (b"", b" "):
        raise ValueError("structured data does not end")
    text = message[place + 1 :]
    text.decode()
    pri = int(head["pri"])
    return Message(
        pri // 8, pri % 8, datetime.fromisoformat(head["time"].decode()), head["hostname"].decode(),
        head["app"].decode(), head["process"].decode(), head["id"].decode(), data, text,
    )  # fmt: skip


def frames(stream: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole messages of an octet-counted stream, and what is left of it."""
    found, place = [], 0
    while place < len(stream):
        head = FRAME.match(stream, place)
        if head is None:
            if len(stream) - place > 8:
                raise ValueError("no octet count")
            break
        end = head.end() + int(head["length"])
        if end > len(stream):
            break
        found.append(stream[head.end() : end])
        place = end
    return found, stream[place:]


@dataclass
class Taken:
    """What a receiver took, and a way to wait for it."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    messages: list = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, messages, raw=b"", problem=None):
        with self.changed:
            self.messages += messages
            self.raw.append(raw)
            if problem:
                self.problems.append(problem)
            self.changed.notify_all()

    def until(self, condition, timeout=40):
        with self.changed:
            if not self.changed.wait_for(lambda: condition(self.messages), timeout):
                raise AssertionError(f"not within {timeout} s: {len(self.messages)} messages")


class SyslogReceiver:
    """Takes syslog over TCP or TLS; `drop` hangs up on the next connections in that way."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.taken = Taken()
        self._tls = tls
        self.drops: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="syslog receiver")
        self._thread.start()

    @property
    def address(self) -> str:
        return f"{'tls' if self._tls else 'tcp'}://localhost:{self.port}"

    def close(self) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _serve(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(20)
            with connection, contextlib.suppress(OSError):
                self._take(connection)

    def _take(self, connection) -> None:
        drop = self.drops.pop(0) if self.drops else None
        if drop == "hang-up":
            return
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        stream, raw = b"", b""
        with connection:
            if drop == "unread":
                # It reads some of what came and dies with the rest in its buffer.
                connection.recv(10)
                while self._tls is None and _state(connection) != CLOSE_WAIT:
                    """All of it is to be here first."""
                # Long enough for all of it to be acknowledged, as by a receiver that is slow.
                threading.Event().wait(0.2)
                return
            while data := connection.recv(65536):
                raw += data
                messages, stream = frames(stream + data)
                self.taken.add([parse(message) for message in messages])
            self.taken.add([], raw, "cut off" if stream else None)


def _state(connection) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


class OtlpReceiver:
    """Takes OTLP logs over HTTP; `answers` are the statuses of the next answers, then 200."""

    def __init__(self, port: int = 0) -> None:
        self.taken = Taken()
        self.answers: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.rejects = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.headers.append({k.lower(): v for k, v in self.headers.items()})
                status = receiver.answers.pop(0) if receiver.answers else 200
                answer = ExportLogsServiceResponse()
                if status == 200:
                    assert self.path == "/v1/logs"
                    request = ExportLogsServiceRequest.FromString(body)
                    answer.partial_success.rejected_log_records = receiver.rejects
                    receiver.taken.add(
                        [
                            (resource.resource, record)
                            for resource in request.resource_logs
                            for scope in resource.scope_logs
                            for record in scope.log_records
                        ],
                        body,
                    )
                else:
                    receiver.taken.add([], body)
                data = answer.SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1/logs"
        self._thread = threading.Thread(target=self._server.serve_forever, name="OTLP receiver")
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def attributes(record) -> dict:
    """Return a log record's or resource's attributes as Python values."""
    return {pair.key: _value(pair.value) for pair in record.attributes}


def _value(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
