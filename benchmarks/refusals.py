"""What a refusal at a full door costs, and where the time goes until it has arrived.

    python benchmarks/refusals.py [--model tabular] [--times 5]

The gateway runs in this process, on one processor, and the load in another on the other. First the door
is held shut, so that everything is refused by its head: told is the processor time of one refusal. Then
an open loop asks at a multiple of the peak, and each request says when it was written (both processes
read the same clock). Told of what was refused by the head:

- unread: from there until its head was read. A connection that goes on asking is left
  unread on purpose;
- gateway: until the refusal was recorded and handed to the kernel;
- both: the two together, which is all that the gateway is answerable for;
- whole: until the load had read the answer, which is its own event loop's time as well.
"""

import argparse
import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import rig
import uvloop
from load import STAMP, measure, quantile

from bedside.compose import open_gateway
from bedside.held import HeldConnections
from bedside.http import serve_http
from bedside.listen import listen_tcp
from bedside.site import Site
from secure_gateway import GatewaySettings
from secure_gateway.admission import AdmissionSettings
from secure_gateway.gateway import Gateway
from secure_gateway.run import running
from secure_gateway.threshold import Threshold

Headers = Iterable[tuple[bytes, bytes]]

# So many that no door has room.
SHUT: Final = 1_000_000
# So short that fewer are let in than connections bring.
TARGET_WAIT_S: Final = 0.05


class Watched:
    """The threshold of a gateway, which notes when it was asked and when it answered."""

    def __init__(self, threshold: Threshold) -> None:
        self._threshold = threshold
        self.crowded = threshold.crowded
        # When each refused request was written, read, and answered; in ns of the monotonic clock.
        self.seen: list[tuple[int, int, int]] = []

    def turn_away(
        self, path: str, headers: Headers, answer: Callable[..., None], *, called: bool
    ) -> str | None:
        """Do what the threshold does."""
        read_ns = time.monotonic_ns()
        sent_ns = next((int(value) for name, value in headers if name == STAMP), read_ns)

        def answered(*parts: Any) -> None:
            answer(*parts)
            self.seen.append((sent_ns, read_ns, time.monotonic_ns()))

        return self._threshold.turn_away(path, headers, answered, called=called)


class Bench:
    """A gateway in this process, and load on it from another."""

    def __init__(self, site: Site, gateway: Gateway, app: Any, model: str) -> None:
        self.gateway, self.app, self.model = gateway, app, model
        self._port = site.config.gateway.port
        url, body = rig.url_of(site, model), rig.body_of(model)
        self.load = partial(measure, url, body, token=rig.token_of(site), cpu=rig.LOAD_CPU, own=True)

    async def ask(self, threshold: Any, refusals_per_s: float, **load: Any) -> dict[str, Any]:
        """Serve while the load asks, and return what it counted."""
        listener, stop = listen_tcp("127.0.0.1", self._port), asyncio.Event()
        held = HeldConnections(self.gateway.threshold, refusals_per_s)
        serving = asyncio.create_task(
            serve_http(self.app, listener, stop, lambda: None, threshold=threshold, held=held)
        )
        try:
            return await asyncio.to_thread(self.load, **load)
        finally:
            stop.set()
            await serving

    async def cost(self, seconds: float, connections: int) -> float:
        """Return the processor time of a refusal by the head, in us."""
        threshold, counters = self.gateway.threshold, self.gateway.recorder.counters
        limit = self.gateway.door.limits()[self.model]
        limit.under_way += SHUT
        threshold.crowded[self.model] = time.monotonic()
        asked, began = sum(counters.requests.values()), time.process_time()
        await self.ask(threshold, math.inf, seconds=seconds, connections=connections)
        spent = time.process_time() - began
        limit.under_way -= SHUT
        return spent / (sum(counters.requests.values()) - asked) * 1e6


async def bench(folder: Path, options: argparse.Namespace) -> None:
    model = options.model
    admission = AdmissionSettings(target_wait_s=TARGET_WAIT_S)
    site = rig.make_site(
        folder, [model], gateway=GatewaySettings(port=rig.free_port(), admission=admission)
    )
    gateway = await open_gateway(site)
    async with running(gateway) as app:
        bench = Bench(site, gateway, app, model)
        ask = partial(bench.ask, gateway.threshold, admission.refusals_per_s)
        await ask(seconds=1, connections=64)
        peak = (await ask(seconds=options.seconds / 2, connections=64))["per_s"]
        print(f"{model}: peak {peak:,.0f}/s, then {options.times:.0f} x over {options.connections}")
        print(f"{'ms':<10}{'p50':>9}{'p90':>9}{'p99':>9}{'most':>9}")
        for _ in range(options.rounds):
            watched = Watched(gateway.threshold)
            result = await bench.ask(
                watched,
                admission.refusals_per_s,
                seconds=options.seconds,
                connections=options.connections,
                rate=peak * options.times,
                stamped=True,
            )
            _tell(watched.seen, result)
        for connections in (20, 200):
            costs = [await bench.cost(options.seconds, connections) for _ in range(options.rounds)]
            print(f"a refusal, {connections} connections: {rig.median(costs):.1f} us of processor time")


def _tell(seen: list[tuple[int, int, int]], result: dict[str, Any]) -> None:
    refused = result["503"]
    rows = {
        "unread": sorted((read - sent) / 1e9 for sent, read, _ in seen),
        "gateway": sorted((answered - read) / 1e9 for _, read, answered in seen),
        "both": sorted((answered - sent) / 1e9 for sent, _, answered in seen),
    }
    for name, times in rows.items():
        shown = "".join(f"{quantile(times, q):>9.1f}" for q in (0.5, 0.9, 0.99, 1.0))
        print(f"{name:<10}{shown}")
    whole = "".join(f"{refused[f'{q}_sent_ms']:>9.1f}" for q in ("p50", "p90", "p99", "most"))
    print(f"{'whole':<10}{whole}")
    print(
        f"served {result['per_s']:,.0f}/s, refused {result['refused_per_s']:,.0f}/s; the load was busy "
        f"{result['busy']:.0%} of the time, and its clock late by {result['late_p99_ms']:.1f} ms (p99)"
    )


def main() -> None:
    parser = rig.parser(__doc__, seconds=4)
    parser.add_argument("--model", choices=list(rig.SHAPES), default="tabular")
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=1000)
    options = parser.parse_args()
    # Before anything is loaded: models choose by it where they run.
    os.sched_setaffinity(0, {rig.SERVER_CPU})
    print(rig.machine())
    with rig.workplace(options.folder) as folder:
        uvloop.run(bench(folder, options))


if __name__ == "__main__":
    main()
