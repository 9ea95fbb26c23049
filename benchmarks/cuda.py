"""Bedside on an NVIDIA GPU beside ONNX Runtime itself, a convolutional network at batch 1 to 64.

    python benchmarks/cuda.py [--batches 1 2 4 8 16 32 64]

Needs a GPU on which ONNX Runtime's CUDA provider works; where there is none, it says so and ends with
status 3. Bedside's own node is asked in this process, through validation and batcher, by two callers
at a time: one request runs while the other is made ready.
"""

import asyncio
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import rig
import uvloop

from inference_node import InferRequest, Node, NodeSettings, Tensor
from inference_node.runtime import CUDA, works

MODEL = "cnn"


def direct(path: Path, batch: int, seconds: float) -> float:
    """Return the rows each second of ONNX Runtime alone, from and to memory of the host."""
    session = ort.InferenceSession(str(path), providers=[CUDA, "CPUExecutionProvider"])
    rows = np.random.default_rng(0).random((batch, *rig.SHAPES[MODEL]), dtype=np.float32)
    for _ in range(20):
        session.run(None, {"x": rows})
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        session.run(None, {"x": rows})
        runs += 1
    return runs * batch / (time.perf_counter() - began)


async def through_node(models: Path, batch: int, seconds: float) -> float:
    """Return the rows each second through a node, by requests that bring `batch` rows."""
    node = Node(NodeSettings(repository=models, device="cuda", max_batch_size=batch))
    await node.start()
    rows = np.random.default_rng(0).random((batch, *rig.SHAPES[MODEL]), dtype=np.float32)
    tensor = Tensor(name="x", datatype="FP32", shape=rows.shape, array=rows)
    answered, until = 0, float("inf")

    async def caller() -> None:
        nonlocal answered
        while time.perf_counter() < until:
            await node.infer(MODEL, None, InferRequest(inputs=[tensor]))
            answered += batch

    try:
        for _ in range(20):
            await node.infer(MODEL, None, InferRequest(inputs=[tensor]))
        began = time.perf_counter()
        until = began + seconds
        await asyncio.gather(*(caller() for _ in range(2)))
        return answered / (time.perf_counter() - began)
    finally:
        await node.close()


def main() -> None:
    parser = rig.parser(__doc__, seconds=2)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    options = parser.parse_args()
    if not works(CUDA):
        print("not measured: ONNX Runtime finds no working NVIDIA GPU on this machine", file=sys.stderr)
        raise SystemExit(3)
    with rig.workplace(options.folder) as folder:
        rig.write_models(folder / "models", [MODEL])
        path = folder / "models" / MODEL / "1" / "model.onnx"
        print(f"{'batch':>6}{'directly, rows/s':>18}{'Bedside, rows/s':>18}{'share':>8}")
        for batch in options.batches:
            pairs = [
                (
                    direct(path, batch, options.seconds),
                    uvloop.run(through_node(folder / "models", batch, options.seconds)),
                )
                for _ in range(options.rounds)
            ]
            share = rig.median([own / other for other, own in pairs])
            own, other = rig.median([p[1] for p in pairs]), rig.median([p[0] for p in pairs])
            print(f"{batch:>6}{other:>18,.0f}{own:>18,.0f}{share:>8.0%}")


if __name__ == "__main__":
    main()
