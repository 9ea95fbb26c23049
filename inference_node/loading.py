"""Makes one model version ready to serve: checks it, opens its session, warms it up."""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from inference_node.batch import QueuePolicy
from inference_node.batcher import Batcher
from inference_node.contract import Contract, contract_of
from inference_node.declared import PREFIX, check_declared
from inference_node.errors import ExecutionFailed, ModelNotReady
from inference_node.large_pages import use_large_pages
from inference_node.model_config import ModelConfig
from inference_node.model_file import read_model
from inference_node.oip import ModelMetadata, TensorMetadata
from inference_node.releases import verify_release
from inference_node.runtime import CPU, Session, provider_for, zeros
from inference_node.settings import NodeSettings
from inference_node.warm_up import warm_up

logger = logging.getLogger(__name__)

# Handing a batch to a thread and back costs about 60 us of the event loop's core; a run that is
# shorter than that is cheaper where it is (measured: 1x30 float32, 9 us a run). With one core for
# everything a thread gains nothing at all, so there only the second limit counts.
INLINE_BELOW_S: Final = 60e-6
# What one inline batch may hold up every other request for, with several cores and with one.
INLINE_BATCH_BELOW_S: Final = 500e-6
INLINE_BATCH_ALONE_BELOW_S: Final = 10e-3

_WARM_RUNS: Final = 5
_TRITON_TYPES: Final = {"BYTES": "STRING"}


class LoadedModel(Struct, frozen=True, kw_only=True):
    """One model version that serves; `digest` is SHA-256 of its file."""

    name: str
    version: str
    digest: str
    session: Session
    config: ModelConfig
    inputs: tuple[TensorMetadata, ...]
    outputs: Mapping[str, TensorMetadata]
    output_names: tuple[str, ...]
    batches: bool
    max_rows: int
    rows_limit: int | None
    labels: Mapping[str, tuple[str, ...]]
    batcher: Batcher
    executor: Executor

    def metadata(self, versions: tuple[str, ...]) -> ModelMetadata:
        """Return what the model takes and gives."""
        return ModelMetadata(
            name=self.name,
            versions=versions,
            platform="onnxruntime_onnx",
            inputs=self.inputs,
            outputs=tuple(self.outputs.values()),
            parameters={
                "execution_provider": self.session.provider,
                **{PREFIX + one.name: one.text for one in self.config.distributions},
            },
        )

    def configuration(self) -> dict[str, Any]:
        """Return the fields of `config.pbtxt`, completed with what the model says of itself."""
        fields = {
            "name": self.name,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "max_batch_size": self.max_rows if self.batches else 0,
            "default_model_filename": self.config.model_file,
            **self.config.fields,
        }
        skipped = 1 if self.batches else 0
        for key, values in (("input", self.inputs), ("output", tuple(self.outputs.values()))):
            fields.setdefault(
                key,
                [
                    {
                        "name": value.name,
                        "data_type": f"TYPE_{_TRITON_TYPES.get(value.datatype, value.datatype)}",
                        "dims": list(value.shape[skipped:]),
                    }
                    for value in values
                ],
            )
        return fields

    async def retire(self) -> None:
        """Finish what waits and runs, then let go of the threads."""
        await self.batcher.drain()
        self.executor.shutdown()


def load_version(
    folder: Path, name: str, version: str, config: ModelConfig, settings: NodeSettings, provider: str
) -> LoadedModel:
    """Load the version in `folder` and warm it up; blocking.

    Raises:
        ModelNotReady: with the reason, if it may not or cannot be served.
    """
    digest, session = _open(folder, name, version, config, settings, provider)
    use_large_pages()
    contract = contract_of(config, session)
    session.reshape(contract.reshaped_inputs, contract.reshaped_outputs)
    check_declared(config.distributions, contract.outputs, batches=contract.batches)
    max_rows = (config.max_batch_size or settings.max_batch_size) if contract.batches else 1
    # How many rows of different requests run together.
    together = 1 if session.mixes_rows else max_rows
    names = tuple(output.name for output in contract.outputs)
    for warmup in config.warmups:
        warm_up(warmup, session, contract, names)
    inline = config.instances == 1 and _fits_inline(session, contract, names, together)
    executor = ThreadPoolExecutor(config.instances, thread_name_prefix=f"model-{name}")
    return LoadedModel(
        name=name,
        version=version,
        digest=digest,
        session=session,
        config=config,
        inputs=contract.inputs,
        outputs={output.name: output for output in contract.outputs},
        output_names=names,
        batches=contract.batches,
        max_rows=max_rows,
        rows_limit=config.max_batch_size or None,
        labels={output.name: _labels(output.labels) for output in config.outputs if output.labels},
        executor=executor,
        batcher=Batcher(
            session.run,
            max_rows=together,
            max_queue_size=settings.max_queue_size,
            executor=None if inline else executor,
            beyond=executor if inline else None,
            instances=config.instances,
            policy=config.queue or _site_policy(settings),
            ragged=config.ragged,
            trims=contract.trims,
        ),
    )


def _open(
    folder: Path, name: str, version: str, config: ModelConfig, settings: NodeSettings, provider: str
) -> tuple[str, Session]:
    """Return the digest of the model's file and a session on the very bytes that have it."""
    data = read_model(folder / config.model_file)
    digest = hashlib.sha256(data).hexdigest()
    if settings.release_keys:
        verify_release(folder, name, version, digest, settings.release_keys, config.model_file)
    session = Session(
        data,
        provider=provider_for(
            config.hardware, provider, settings.device, tensorrt=config.tensorrt is not None
        ),
        intra_op_threads=(
            settings.intra_op_threads if config.intra_op_threads is None else config.intra_op_threads
        ),
        tensorrt=config.tensorrt,
    )
    return digest, session


def _site_policy(settings: NodeSettings) -> QueuePolicy:
    levels = settings.priority_levels
    return QueuePolicy(
        max_queue_delay_s=settings.max_queue_delay_us / 1e6,
        priority_levels=levels,
        default_priority=(levels + 1) // 2,
    )


def _labels(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelNotReady("config.pbtxt: label_filename cannot be read as UTF-8 text") from error
    # Only a line feed ends a line, as for Triton. `splitlines` knows many more ends, and a label that
    # has one of them within would give all that follow to the wrong class.
    lines = text.removesuffix("\n").split("\n") if text else []
    return tuple(line.removesuffix("\r") for line in lines)


def _fits_inline(session: Session, contract: Contract, names: tuple[str, ...], max_rows: int) -> bool:
    """Warm the session up on zeros and say whether it is cheaper to run on the event loop.

    Only the number of rows may differ between requests, up to `max_rows`, which are timed: in an open
    dimension of which one element was timed, a request of 8 x 30,000 took 0.3 s.
    """
    sizes = [size for value in contract.inputs for size in value.shape[contract.batches :]]

    def best_time_s(rows: int) -> float:
        feed = {value.name: zeros(value, rows) for value in contract.inputs}
        return _best_time_s(lambda: session.run(feed, names))

    try:
        if session.provider != CPU or -1 in sizes:
            best_time_s(1)
            return False
        if len(os.sched_getaffinity(0)) == 1:
            return best_time_s(max_rows) < INLINE_BATCH_ALONE_BELOW_S
        return best_time_s(1) < INLINE_BELOW_S and best_time_s(max_rows) < INLINE_BATCH_BELOW_S
    except ExecutionFailed:
        # Zeros of the smallest shape need not be an input that the model can run on.
        logger.warning("a model could not be warmed up on zeros; model_warmup gives it a better sample")
        return False


def _best_time_s(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_WARM_RUNS):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best
