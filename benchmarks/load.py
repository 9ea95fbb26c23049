"""Load on one URL, from one process: closed loops (whoever is answered asks again) or an open one.

    python benchmarks/load.py URL --body request.json --connections 32 --seconds 4
    python benchmarks/load.py URL --body request.json --rate 5000 --connections 256

An open loop asks at its rate whatever the answers do, as people do. Prints one JSON object. Closed
loops are left to `wrk` where it is installed and `--own` is not given: it needs less of its core.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
import uvloop

PACE_S = 0.001
SAMPLES_MAX = 2_000_000
# With `--stamped`, when the request was written, in ns of the monotonic clock.
STAMP = b"x-written-ns"


class Caller(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.parser = httptools.HttpResponseParser(self)
        self.transport: Any = None
        self.due_at = 0.0
        self.sent_at = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.load.idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.load.lost(self)

    def ask(self, due: float) -> None:
        self.busy, self.due_at, self.sent_at = True, due, time.perf_counter()
        before, behind = self.load.request, self.load.behind
        if behind:
            before += b"%d%s" % (time.monotonic_ns(), behind)
        self.transport.write(before)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.busy = False
        status = self.parser.get_status_code()
        self.parser = httptools.HttpResponseParser(self)
        now = time.perf_counter()
        self.load.answered(self, status, now - self.due_at, now - self.sent_at)


class Load:
    """Asks, counts and times."""

    def __init__(self, request: bytes, rate: float | None, behind: bytes = b"") -> None:
        # What is written, and what follows the time of writing where that is sent too.
        self.request, self.behind = request, behind
        self.rate = rate
        self.waiting: deque[float] = deque()
        self.free: list[Caller] = []
        self.callers: set[Caller] = set()
        self.statuses: Counter[int] = Counter()
        # From when a request was due, and from when it was written.
        self.times: dict[int, list[float]] = {}
        self.sent_times: dict[int, list[float]] = {}
        self.running = False
        self.counting = False
        self.dropped = 0
        self.late: list[float] = []
        self.busy = 0.0

    def idle(self, caller: Caller) -> None:
        self.callers.add(caller)
        if self.rate is None:
            if self.running:
                caller.ask(time.perf_counter())
            else:
                self.free.append(caller)
        elif self.waiting:
            caller.ask(self.waiting.popleft())
        else:
            self.free.append(caller)

    def lost(self, caller: Caller) -> None:
        self.callers.discard(caller)
        if caller in self.free:
            self.free.remove(caller)
        if self.running:
            self.dropped += 1

    def answered(self, caller: Caller, status: int, elapsed: float, since_sent: float) -> None:
        if self.counting:
            self.statuses[status] += 1
            times = self.times.setdefault(status, [])
            if len(times) < SAMPLES_MAX:
                times.append(elapsed)
                self.sent_times.setdefault(status, []).append(since_sent)
        if self.running or self.rate is not None:
            self.idle(caller)

    async def run(self, host: str, port: int, connections: int, seconds: float, warm_s: float) -> float:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: Caller(self), host, port)
        self.running = True
        if self.rate is None:
            free, self.free = self.free, []
            for caller in free:
                caller.ask(time.perf_counter())
        pacing = loop.create_task(self._pace()) if self.rate is not None else None
        await asyncio.sleep(warm_s)
        self.counting, began, spent = True, time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        self.counting, ended = False, time.perf_counter()
        self.busy = (time.process_time() - spent) / (ended - began)
        self.running = False
        if pacing is not None:
            pacing.cancel()
        for caller in list(self.callers):
            caller.transport.abort()
        return ended - began

    async def _pace(self) -> None:
        rate = self.rate or 1.0
        began, asked = time.perf_counter(), 0
        while True:
            now = time.perf_counter()
            due = int((now - began) * rate)
            while asked < due:
                at = began + asked / rate
                asked += 1
                if self.free:
                    self.free.pop().ask(at)
                elif len(self.waiting) < SAMPLES_MAX:
                    # All connections are busy: it is late from now on, and counted so.
                    self.waiting.append(at)
            before = time.perf_counter()
            await asyncio.sleep(PACE_S)
            if self.counting:
                # How late this process is for its own appointments is how late it reads answers.
                self.late.append(time.perf_counter() - before - PACE_S)


def quantile(times: list[float], q: float) -> float:
    """Return a quantile of sorted times in milliseconds."""
    return times[min(len(times) - 1, int(len(times) * q))] * 1e3 if times else 0.0


def summary(load: Load, elapsed: float) -> dict[str, Any]:
    """Return what was counted."""
    late = sorted(load.late)
    made: dict[str, Any] = {"elapsed_s": elapsed, "tool": "own", "lost": load.dropped}
    made |= {"busy": load.busy, "late_p99_ms": quantile(late, 0.99)}
    for status, times in load.times.items():
        times.sort()
        sent = sorted(load.sent_times[status])
        made[str(status)] = {
            "p50_sent_ms": quantile(sent, 0.5),
            "p90_sent_ms": quantile(sent, 0.9),
            "p99_sent_ms": quantile(sent, 0.99),
            "most_sent_ms": quantile(sent, 1.0),
            "per_s": load.statuses[status] / elapsed,
            "p50_ms": quantile(times, 0.5),
            "p99_ms": quantile(times, 0.99),
        }
    served = made.get("200", {})
    made["per_s"], made["p50_ms"], made["p99_ms"] = (
        served.get(key, 0.0) for key in ("per_s", "p50_ms", "p99_ms")
    )
    made["refused_per_s"] = sum(
        count / elapsed for status, count in load.statuses.items() if status != 200
    )
    return made


def request_of(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return one HTTP/1.1 request."""
    parts = urlsplit(url)
    fields = {"Host": parts.netloc, "Content-Type": "application/json", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {parts.path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def with_wrk(url: str, body: Path, headers: dict[str, str], connections: int, seconds: float) -> Any:
    """Return what wrk counted; it takes whole seconds."""
    lines = ['wrk.method = "POST"', f'local f = io.open("{body}")', 'wrk.body = f:read("*a")']
    sent = {"Content-Type": "application/json", **headers}
    lines += [f'wrk.headers["{k}"] = "{v}"' for k, v in sent.items()]
    bad = "s.errors.status + s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout"
    form = 'io.write(string.format("RESULT %d %d %d %f %f\\n", s.requests, s.duration, bad'
    lines.append(f"done = function(s, l, r) local bad = {bad}")
    lines.append(f"{form}, l:percentile(50), l:percentile(99))) end")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("\n".join(lines))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script.name]
        out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    fields = next(line for line in out.splitlines() if line.startswith("RESULT")).split()[1:]
    requests, duration_us, bad, p50, p99 = (float(field) for field in fields)
    elapsed = duration_us / 1e6
    return {
        "elapsed_s": elapsed,
        "tool": "wrk",
        "per_s": (requests - bad) / elapsed,
        "refused_per_s": bad / elapsed,
        "p50_ms": p50 / 1e3,
        "p99_ms": p99 / 1e3,
    }


def measure(
    url: str,
    body: bytes,
    *,
    connections: int,
    seconds: float,
    token: str | None = None,
    headers: dict[str, str] | None = None,
    rate: float | None = None,
    cpu: int | None = None,
    own: bool = False,
    stamped: bool = False,
) -> dict[str, Any]:
    """Run this script in a process of its own, on one processor, and return what it prints."""
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(body)
        file.flush()
        command = [sys.executable, __file__, url, "--body", file.name]
        command += ["--connections", str(connections), "--seconds", str(seconds)]
        command += ["--rate", str(rate)] if rate is not None else []
        command += ["--own"] if own else []
        command += ["--stamped"] if stamped else []
        # Not as arguments: those of a process are there for all to see, and a token is a secret.
        environment = {**os.environ, "LOAD_HEADERS": json.dumps(sent)}
        pinned = ["taskset", "-c", str(cpu), *command] if cpu is not None else command
        out = subprocess.run(
            pinned, capture_output=True, text=True, check=True, env=environment, timeout=seconds + 60
        ).stdout
    result: dict[str, Any] = json.loads(out)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("url", help="http://host:port/path")
    parser.add_argument("--body", type=Path, required=True, help="file with the request's body")
    parser.add_argument("--connections", type=int, default=32, help="connections, 1 to 20000")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to count, up to 300")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds before counting")
    parser.add_argument("--rate", type=float, help="requests each second (default: closed loops)")
    parser.add_argument("--own", action="store_true", help="never use wrk")
    parser.add_argument("--stamped", action="store_true", help="say when each request was written")
    options = parser.parse_args()
    options.seconds = min(options.seconds, 300.0)
    options.connections = max(1, min(options.connections, 20000))
    headers = json.loads(os.environ.get("LOAD_HEADERS", "{}"))
    if options.rate is None and not options.own and shutil.which("wrk"):
        seconds = options.seconds
        print(json.dumps(with_wrk(options.url, options.body, headers, options.connections, seconds)))
        return
    parts = urlsplit(options.url)
    request, behind = request_of(options.url, options.body.read_bytes(), headers), b""
    if options.stamped:
        line, _, behind = request.partition(b"\r\n")
        request, behind = line + b"\r\n" + STAMP + b": ", b"\r\n" + behind
    load = Load(request, options.rate, behind)
    elapsed = uvloop.run(
        load.run(
            parts.hostname or "", parts.port or 80, options.connections, options.seconds, options.warm
        )
    )
    print(json.dumps(summary(load, elapsed)))


if __name__ == "__main__":
    main()
