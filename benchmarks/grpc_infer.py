"""What ModelInfer costs over gRPC with everything on, beside servers of grpc.aio that do nothing.

    python benchmarks/grpc_infer.py [--calls 8000] [--concurrency 1 32] [--rounds 3]

Three processes take turns on one core: a gateway with an embedded node and a small model, whose log
writes to the disk of a temporary folder; and two servers that answer every call with nothing. One of
them is given each message, which grpc.aio then reads by itself; the other reads it as the gateway does,
which first sees who called. The load comes from this process, on one connection. The first quarter of
the calls is not counted, and figures are medians of rounds. The gateway's REST side, with as many
connections, is measured in the same rounds.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import psutil
import rig
import uvloop
from load import measure as over_http

from bedside.site import Site
from inference_node.schema import SERVICE, message_class
from secure_gateway import GatewaySettings

REST = "Bedside over REST"
WARM_UP_S = 0.5
METHOD = f"/{SERVICE}/ModelInfer"
(FEATURES,) = rig.SHAPES["tabular"]

Figures = tuple[float, float, float, float]
"""Calls a second, median and 99 % in us, and the server's processor time for a call in us."""


def request() -> bytes:
    message = message_class("ModelInferRequest")(model_name="tabular")
    message.inputs.add(name="x", datatype="FP32", shape=[1, FEATURES])
    values = np.linspace(0, 0.29, FEATURES, dtype=np.float32)
    message.raw_input_contents.append(values.tobytes())
    encoded: bytes = message.SerializeToString()
    return encoded


async def serve_nothing(port: int, *, reads: bool) -> None:
    """Answer every call with an empty message, after reading its own."""

    async def given(_request: bytes, _context: Any) -> bytes:
        return b""

    async def read(_requests: object, context: Any) -> bytes:
        await context.read()
        return b""

    class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _details: Any) -> Any:
            if reads:
                return grpc.stream_unary_rpc_method_handler(read)
            return grpc.unary_unary_rpc_method_handler(given)

    server = grpc.aio.server(handlers=(Methods(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


@contextlib.contextmanager
def nothing(port: int, kind: str) -> Iterator[int]:
    command = [sys.executable, __file__, "--serve-nothing", str(port), kind]
    with subprocess.Popen(rig.pinned(rig.SERVER_CPU, command), stdout=subprocess.PIPE) as child:
        try:
            if child.stdout is None or child.stdout.readline() != b"ready\n":
                sys.exit("the server that does nothing did not start")
            yield child.pid
        finally:
            child.terminate()


async def load(port: int, token: str, calls: int, concurrency: int, pid: int) -> Figures:
    body, metadata = request(), (("authorization", f"Bearer {token}"),)
    server = psutil.Process(pid)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(METHOD)

        async def caller(count: int, times: list[float]) -> None:
            for _ in range(count):
                began = time.perf_counter()
                await infer(body, metadata=metadata)
                times.append(time.perf_counter() - began)

        async def run(count: int) -> list[float]:
            times: list[float] = []
            await asyncio.gather(*(caller(count // concurrency, times) for _ in range(concurrency)))
            return times

        await run(calls // 4)
        cpu, began = sum(server.cpu_times()[:2]), time.perf_counter()
        times = await run(calls)
        elapsed = time.perf_counter() - began
        spent = sum(server.cpu_times()[:2]) - cpu
    return (
        len(times) / elapsed,
        statistics.median(times) * 1e6,
        float(np.quantile(times, 0.99)) * 1e6,
        spent / len(times) * 1e6,
    )


def over_rest(site: Site, token: str, seconds: float, connections: int, pid: int) -> Figures:
    server = psutil.Process(pid)
    cpu = sum(server.cpu_times()[:2])
    result = over_http(
        rig.url_of(site, "tabular"),
        rig.body_of("tabular"),
        connections=connections,
        seconds=seconds,
        token=token,
        cpu=rig.LOAD_CPU,
        own=True,
    )
    spent = sum(server.cpu_times()[:2]) - cpu
    # The load's warm-up counts for the processor time, and not among the answers.
    asked = result["per_s"] * (result["elapsed_s"] + WARM_UP_S)
    return result["per_s"], result["p50_ms"] * 1e3, result["p99_ms"] * 1e3, spent / asked * 1e6


def measure(folder: Path, options: argparse.Namespace) -> None:
    settings = GatewaySettings(port=rig.free_port(), grpc_port=rig.free_port())
    site = rig.make_site(folder, ["tabular"], gateway=settings)
    token = rig.token_of(site)
    given, read = rig.free_port(), rig.free_port()
    with (
        rig.gateway_of(site) as gateway,
        nothing(given, "given") as given_pid,
        nothing(read, "read") as read_pid,
    ):
        psutil.Process().cpu_affinity([rig.LOAD_CPU])
        servers = {
            "nothing, message given": (given, given_pid),
            "nothing, message read": (read, read_pid),
            "Bedside": (settings.grpc_port or 0, gateway.pid),
        }
        print(f"{'server':<24}{'callers':>8}{'calls/s':>10}{'p50 us':>9}{'p99 us':>9}{'cpu us':>9}")
        for concurrency in options.concurrency:
            rounds: dict[str, list[Figures]] = {name: [] for name in (*servers, REST)}
            for _ in range(options.rounds):
                for name, (port, pid) in servers.items():
                    figures = uvloop.run(load(port, token, options.calls, concurrency, pid))
                    rounds[name].append(figures)
                rounds[REST].append(
                    over_rest(site, token, options.calls / 2000, concurrency, gateway.pid)
                )
            for name, of_name in rounds.items():
                per_s, p50, p99, cpu = (rig.median(column) for column in zip(*of_name, strict=True))
                print(
                    f"{name:<24}{concurrency:>8}{per_s:>10,.0f}{p50:>9,.0f}{p99:>9,.0f}{cpu:>9,.0f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=8000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=3, help="repeats; the median is shown")
    parser.add_argument(
        "--folder", type=Path, help="where the log's disk is (default: a temporary one)"
    )
    parser.add_argument("--serve-nothing", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_nothing:
        port, kind = options.serve_nothing
        uvloop.run(serve_nothing(int(port), reads=kind == "read"))
        return
    print(rig.machine())
    with rig.workplace(options.folder) as folder:
        measure(folder, options)


if __name__ == "__main__":
    main()
