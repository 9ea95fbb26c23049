"""What each stage of a request costs, in microseconds of one processor, with everything on.

    python benchmarks/stages.py [--model tabular] [--connections 32]

A gateway in this process is asked over HTTP by another one. Each stage's own steps are timed, without
what it waits for; what the process used in all, divided by the requests, is the last line, and what is
left of it belongs to the event loop, the kernel's part of sockets, and threads changing places.
"""

import asyncio
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import rig
import uvloop
from load import measure

from audit.group_commit import GroupCommit
from bedside.compose import open_gateway
from bedside.http import serve_http
from bedside.http_cycle import Cycle
from bedside.http_known import KnownHeadProtocol
from bedside.listen import listen_tcp
from inference_node.batcher import Batcher
from secure_gateway import respond
from secure_gateway.rest import RestApi
from secure_gateway.run import running

STAGES = ("authenticate", "describe", "decide", "route", "execute", "record", "respond")
# What these take lies within what others take: it is taken off there.
WITHIN = {
    # Answers are encoded while their records are on the way to the disk.
    "headers, call and answer": (*(stage for stage in STAGES if stage != "respond"), "http: writing"),
}


class Clock:
    """Keeps what each stage took; of an asynchronous one, its own steps without its waiting."""

    def __init__(self) -> None:
        self.working: dict[str, list[float]] = defaultdict(list)

    def stage(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        times = self.working[name]

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                times.append(time.perf_counter() - started)

        return timed

    def asynchronous(
        self, name: str, call: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        working = self.working[name]

        class Stepped:
            """Drives the coroutine, so that only the time between its waits is counted as work."""

            def __init__(self, *arguments: Any) -> None:
                self._arguments = arguments

            def __await__(self) -> Any:
                steps = call(*self._arguments).__await__()
                spent, sent = 0.0, None
                while True:
                    started = time.perf_counter()
                    try:
                        waiting = steps.send(sent)
                    except StopIteration as end:
                        ended = time.perf_counter()
                        working.append(spent + ended - started)
                        return end.value
                    spent += time.perf_counter() - started
                    sent = yield waiting

        return Stepped


def watch(clock: Clock, gateway: Any) -> None:
    """Have the clock time every stage, and what runs beside them."""
    pipeline = gateway.pipeline
    for name in ("authenticate", "decide", "route"):
        setattr(pipeline, f"_{name}", clock.stage(name, getattr(pipeline, f"_{name}")))
    for name in ("describe", "execute", "record"):
        setattr(pipeline, f"_{name}", clock.asynchronous(name, getattr(pipeline, f"_{name}")))
    # The protocol's own last step, which the pipeline hands its answer to.
    respond.http = clock.stage("respond", respond.http)  # type: ignore[assignment]
    for owner, method, name in (
        (KnownHeadProtocol, "data_received", "http: reading"),
        (Cycle, "_write", "http: writing"),
        (Batcher, "_attempt", "the model, in batches"),
        (GroupCommit, "_settle", "the log's tree, in batches"),
        (GroupCommit, "_write_here", "the log's disk, in batches"),
    ):
        timed = clock.stage(name, getattr(owner, method))
        setattr(owner, method, partial_method(timed))
    whole = partial_method(clock.asynchronous("headers, call and answer", RestApi.__call__))
    RestApi.__call__ = whole  # type: ignore[method-assign]


def partial_method(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function, which a class turns into a method."""

    def method(*arguments: Any) -> Any:
        return call(*arguments)

    return method


async def profile(folder: Path, options: Any) -> tuple[dict[str, float], float, int]:
    """Return the microseconds of each part for one request, of all of them, and how many were asked."""
    site = rig.make_site(folder, [options.model])
    listener = listen_tcp("127.0.0.1", site.config.gateway.port)
    gateway, clock, stop = await open_gateway(site), Clock(), asyncio.Event()
    watch(clock, gateway)
    ask = partial(
        measure,
        rig.url_of(site, options.model),
        rig.body_of(options.model),
        connections=options.connections,
        token=rig.token_of(site),
        cpu=rig.LOAD_CPU,
    )
    async with running(gateway) as app:
        serving = asyncio.create_task(serve_http(app, listener, stop, lambda: None))
        await asyncio.to_thread(ask, seconds=2)
        for times in clock.working.values():
            times.clear()
        # The load is a process of its own: its time is not this one's.
        began = time.process_time()
        await asyncio.to_thread(ask, seconds=options.seconds)
        spent = time.process_time() - began
        stop.set()
        await serving
    asked = len(clock.working["headers, call and answer"])
    parts = {}
    for name, times in clock.working.items():
        if name == "the log's disk, in batches":
            continue
        # The middle nine tenths: what another process cut in two is not this stage's.
        times.sort()
        kept = times[len(times) // 20 : -(len(times) // 20) or None]
        parts[name] = statistics.fmean(kept) * 1e6 * len(times) / asked if kept else 0.0
    for name, inner in WITHIN.items():
        parts[name] -= sum(parts[stage] for stage in inner)
    return parts, spent / asked * 1e6, asked


def main() -> None:
    parser = rig.parser(__doc__, seconds=4, rounds=1)
    parser.add_argument("--model", choices=list(rig.SHAPES), default="tabular")
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    # Before anything is loaded: models choose by it where they run.
    os.sched_setaffinity(0, {rig.SERVER_CPU})
    with rig.workplace(options.folder) as folder:
        parts, whole, asked = uvloop.run(profile(folder, options))
    print(rig.machine())
    print(f"{options.model}, {options.connections} connections, {asked} requests")
    print(f"{'part':<32}{'us a request':>14}")
    order = [*STAGES, *(name for name in parts if name not in STAGES)]
    for name in order:
        print(f"{name:<32}{parts[name]:>14.1f}")
    rest = whole - sum(parts.values())
    print(f"{'event loop, kernel and disk':<32}{rest:>14.1f}")
    print(f"{'processor time in all':<32}{whole:>14.1f}")


if __name__ == "__main__":
    main()
