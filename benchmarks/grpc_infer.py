"""What ModelInfer costs over gRPC with everything on: calls a second, latency, the gateway's own work.

    python benchmarks/grpc_infer.py [--calls 8000] [--concurrency 1 32]

A gateway process of its own, with an embedded node and a small model, in a temporary folder whose disk
the log writes to; the load comes from this process, on one connection. With two cores or more, the
gateway has the first and the load the second. The first quarter of the calls is not counted.
"""

import argparse
import asyncio
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

import grpc.aio
import numpy as np
import psutil
import rig
import uvloop

from bedside.children import Child, bedside_command
from bedside.config import Config, ModelEntry
from bedside.site import Site
from bedside.up import environment_of
from inference_node import NodeSettings
from inference_node.schema import SERVICE, message_class
from policies import Purpose, Role
from secure_gateway import GatewaySettings

(FEATURES,) = rig.SHAPES["tabular"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def request() -> bytes:
    message = message_class("ModelInferRequest")(model_name="tabular")
    message.inputs.add(name="x", datatype="FP32", shape=[1, FEATURES])
    values = np.linspace(0, 0.29, FEATURES, dtype=np.float32)
    message.raw_input_contents.append(values.tobytes())
    encoded: bytes = message.SerializeToString()
    return encoded


async def load(address: str, token: str, calls: int, concurrency: int, gateway: psutil.Process) -> None:
    body, metadata = request(), (("authorization", f"Bearer {token}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")

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
        cpu, began = sum(gateway.cpu_times()[:2]), time.perf_counter()
        times = await run(calls)
        elapsed = time.perf_counter() - began
        spent = sum(gateway.cpu_times()[:2]) - cpu
    print(
        f"{concurrency:11d}{len(times) / elapsed:10,.0f}{statistics.median(times) * 1e6:14.0f}"
        f"{np.quantile(times, 0.99) * 1e6:12.0f}{spent / len(times) * 1e6:22.0f}"
    )


async def measure(folder: Path, calls: int, concurrencies: list[int]) -> None:
    rig.write_models(folder / "models", ["tabular"])
    site = Site(
        Config(
            site="bench",
            data=folder / "site",
            gateway=GatewaySettings(port=free_port(), grpc_port=free_port()),
            node=NodeSettings(repository=folder / "models"),
            models={"tabular": ModelEntry(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT,))},
        )
    )
    token = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=3600)
    environment = environment_of(site.config)
    command = bedside_command("gateway")
    child = Child("gateway", command, log=folder / "gateway.log", environment=environment)
    try:
        child.wait_for(lambda line: " ready at " in line, 60)
        gateway = psutil.Process(child.pid)
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            for thread in gateway.threads():
                os.sched_setaffinity(thread.id, {cores[0]})
            os.sched_setaffinity(0, {cores[1]})
        print("concurrency   calls/s    median, us    99 %, us    gateway's CPU, us")
        for concurrency in concurrencies:
            address = f"127.0.0.1:{site.config.gateway.grpc_port}"
            await load(address, token, calls, concurrency, gateway)
    finally:
        child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=8000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(measure(Path(folder), options.calls, options.concurrency))


if __name__ == "__main__":
    main()
