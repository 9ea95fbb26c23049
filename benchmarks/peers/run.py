"""Bedside beside a hand-written FastAPI server and MLServer: the same models, in turns.

    python benchmarks/peers/run.py --models tabular cnn wide --connections 1 32 [--without mlserver]

The peers' environments are made once, from the pinned lists beside this file, under --environments.
Bedside checks a token, decides and writes a durable record for each request; the peers do none of it.
All servers share one processor and take turns, the load has another; read the ratios, not the figures.
Beside other work the ratio by processor time is the one to believe: what rates are if nothing disturbs.
"""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import venv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


import rig  # noqa: E402 this folder's siblings are found only now
from load import measure  # noqa: E402 likewise

PEERS = ("handwritten", "mlserver")


def environment(name: str, root: Path) -> Path:
    """Return the folder of commands of a peer's environment; made if it is not there."""
    requirements = HERE / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = root / f"{name}-{digest}"
    if not (folder / "complete").exists():
        print(f"making the environment of {name} in {folder} (once)", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(folder / "bin" / "pip"), "install", "-q", "-r", str(requirements)]
        subprocess.run(command, check=True)
        (folder / "complete").touch()
    return folder / "bin"


@contextlib.contextmanager
def process(command: list[str], port: int, folder: Path, environ: dict[str, str]) -> Iterator[int]:
    """Run a peer on the servers' processor until the block ends, once it listens; give its id."""
    with (folder / f"{port}.log").open("wb") as log:
        child = subprocess.Popen(
            rig.pinned(rig.SERVER_CPU, command),
            cwd=folder,
            env={**os.environ, **environ},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + rig.START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"a peer did not start; see {folder / f'{port}.log'}")
            time.sleep(0.2)
        yield child.pid
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def peer(name: str, models: list[str], folder: Path, environments: Path) -> Iterator[tuple[int, int]]:
    """Run a peer; give its port and process."""
    commands, port = environment(name, environments), rig.free_port()
    if name == "handwritten":
        command = [str(commands / "uvicorn"), "handwritten:app", "--port", str(port)]
        command += ["--no-access-log", "--log-level", "error", "--app-dir", str(HERE)]
        with process(command, port, folder, {"PEERS_MODELS": str(folder / "models")}) as pid:
            yield port, pid
        return
    root = folder / "mlserver"
    settings: dict[str, Any] = {"host": "127.0.0.1", "http_port": port, "grpc_port": rig.free_port()}
    settings |= {"metrics_port": rig.free_port(), "parallel_workers": 0, "debug": False}
    root.mkdir()
    (root / "settings.json").write_text(json.dumps(settings))
    (root / "mlserver_model.py").write_text((HERE / "mlserver_model.py").read_text())
    for model in models:
        (root / model).mkdir()
        uri = {"uri": str(folder / "models" / model / "1" / "model.onnx")}
        entry = {"name": model, "implementation": "mlserver_model.Ort", "parameters": uri}
        (root / model / "model-settings.json").write_text(json.dumps(entry))
    command = [str(commands / "mlserver"), "start", str(root)]
    # What this process runs in must not leak into another environment.
    with process(command, port, root, {"PYTHONPATH": str(root)}) as pid:
        yield port, pid


def ask(
    name: str, server: tuple[int, int], model: str, connections: int, seconds: float, options: Any
) -> dict[str, float]:
    """Load one server, and take what processor time it used for a request."""
    port, pid = server
    process = psutil.Process(pid)
    before = process.cpu_times()
    result = measure(
        f"http://127.0.0.1:{port}/v2/models/{model}/infer",
        rig.body_of(model),
        connections=connections,
        seconds=seconds,
        token=options.token if name == "bedside" else None,
        cpu=rig.LOAD_CPU,
        own=options.own,
    )
    after = process.cpu_times()
    if result["refused_per_s"]:
        print(f"{name} refused {result['refused_per_s']:.0f}/s of {model}", flush=True)
    spent = after.user + after.system - before.user - before.system
    asked = result["per_s"] * result["elapsed_s"]
    result["cpu_us"] = spent / asked * 1e6 if asked else float("inf")
    return result


def main() -> None:
    parser = rig.parser(__doc__, seconds=3)
    parser.add_argument("--models", nargs="+", choices=list(rig.SHAPES), default=list(rig.SHAPES))
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--without", nargs="+", choices=PEERS, default=[], help="peers to leave out")
    parser.add_argument(
        "--environments", type=Path, default=Path(".cache/peers"), help="where environments are kept"
    )
    parser.add_argument("--own", action="store_true", help="load from load.py, even where wrk is")
    options = parser.parse_args()
    names = [name for name in PEERS if name not in options.without]
    environments = options.environments.resolve()
    for name in names:
        environment(name, environments)

    seen: dict[tuple[str, str, int], list[dict[str, float]]] = defaultdict(list)
    with rig.workplace(options.folder) as folder, contextlib.ExitStack() as stack:
        site = rig.make_site(folder, options.models)
        servers = {
            name: stack.enter_context(peer(name, options.models, folder, environments))
            for name in names
        }
        gateway = stack.enter_context(rig.gateway_of(site))
        servers["bedside"] = (site.config.gateway.port, gateway.pid)
        options.token = rig.token_of(site)
        print(rig.machine(), flush=True)
        # Neighbours in time are what is compared: every round asks each server in turn.
        for turn in range(options.rounds + 1):
            for connections in options.connections:
                for model in options.models:
                    for name, server in servers.items():
                        # The first round warms up.
                        seconds = options.seconds if turn else 1
                        result = ask(name, server, model, connections, seconds, options)
                        if turn:
                            seen[name, model, connections].append(result)

    def show(key: tuple[str, str, int], field: str) -> float:
        return rig.median([result[field] for result in seen[key]])

    print(
        f"{'model':<9}{'conn.':>5} {'server':<12}{'req/s':>8}{'p50 ms':>9}{'cpu us':>8}"
        "   Bedside over it: by rate, by p50, by processor time"
    )
    for model in options.models:
        for connections in options.connections:
            ours = seen["bedside", model, connections]
            for name in servers:
                key = (name, model, connections)
                line = f"{model:<9}{connections:>5} {name:<12}{show(key, 'per_s'):>8,.0f}"
                line += f"{show(key, 'p50_ms'):>9.2f}{show(key, 'cpu_us'):>8.0f}"
                if name != "bedside":
                    # Of each round, since what disturbs one server in it disturbs the other.
                    pairs = list(zip(ours, seen[key], strict=True))
                    rate = rig.median([own["per_s"] / max(other["per_s"], 1) for own, other in pairs])
                    wait = rig.median([other["p50_ms"] / own["p50_ms"] for own, other in pairs])
                    cpu = rig.median([other["cpu_us"] / own["cpu_us"] for own, other in pairs])
                    line += f"{rate:>15.2f} x{wait:>9.2f} x{cpu:>9.2f} x"
                print(line)


if __name__ == "__main__":
    main()
