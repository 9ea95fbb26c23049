"""The model repository on disk: `<model>/<version>/model.onnx`, as Triton lays it out.

A version that cannot be loaded is reported with a reason and leaves all others as they are.
"""

import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from msgspec import Struct

from inference_node.batcher import Batcher
from inference_node.errors import ModelNotReady, ModelUnknown, RepositoryError
from inference_node.oip import RepositoryEntry
from inference_node.releases import MODEL_FILE, file_digest, verify_release
from inference_node.runtime import CPU, Session, choose_provider
from inference_node.settings import NodeSettings

logger = logging.getLogger(__name__)

# Handing a batch to a thread and back costs about 60 us of the event loop's core; a run that is
# shorter than that is cheaper where it is (measured: 1x30 float32, 9 us a run).
INLINE_BELOW_S: Final = 60e-6
# What one inline batch may hold up every other request for.
INLINE_BATCH_BELOW_S: Final = 500e-6

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_WARM_RUNS: Final = 5


class LoadedModel(Struct, frozen=True, kw_only=True):
    """One model version that serves; `digest` is SHA-256 of its file."""

    name: str
    version: str
    digest: str
    session: Session
    batcher: Batcher
    executor: Executor | None


class Repository:
    """Loads every version found under `settings.repository`."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._provider = CPU
        self._loaded: dict[tuple[str, str], LoadedModel] = {}
        self._latest: dict[str, str] = {}
        self._failed: dict[tuple[str, str], str] = {}

    @property
    def provider(self) -> str:
        """The ONNX Runtime execution provider in use."""
        return self._provider

    def load(self) -> None:
        """Load what is on disk; blocking.

        Raises:
            RepositoryError: if the folder does not exist or a GPU is asked for where none works.
        """
        root = self._settings.repository
        if not root.is_dir():
            raise RepositoryError(f"the model repository {root} is not a folder")
        self._provider = choose_provider(self._settings.device)
        for name, version, folder in _versions(root):
            try:
                model = self._load(name, version, folder)
            except ModelNotReady as error:
                self._failed[name, version] = str(error)
                logger.warning("model %s version %s is not served: %s", name, version, error)
                continue
            self._loaded[name, version] = model
            latest = self._latest.get(name)
            if latest is None or int(version) > int(latest):
                self._latest[name] = version

    def find(self, name: str, version: str | None) -> LoadedModel:
        """Return a model that serves; the highest version if none is named.

        Raises:
            ModelUnknown: if there is no such model or version.
            ModelNotReady: if it is there and could not be loaded.
        """
        wanted = version or self._latest.get(name)
        if wanted is not None:
            model = self._loaded.get((name, wanted))
            if model is not None:
                return model
            if (name, wanted) in self._failed:
                raise ModelNotReady(self._failed[name, wanted])
        elif any(failed == name for failed, _ in self._failed):
            raise ModelNotReady("no version of the model could be loaded")
        raise ModelUnknown("the repository has no such model or version")

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model that serve, lowest first."""
        return tuple(sorted((version for own, version in self._loaded if own == name), key=int))

    def index(self) -> list[RepositoryEntry]:
        """Return every version found, with its state."""
        ready = [
            RepositoryEntry(name=name, version=version, state="READY", digest=model.digest)
            for (name, version), model in self._loaded.items()
        ]
        failed = [
            RepositoryEntry(name=name, version=version, state="UNAVAILABLE", reason=reason)
            for (name, version), reason in self._failed.items()
        ]
        return sorted(ready + failed, key=lambda entry: (entry.name, int(entry.version)))

    async def close(self) -> None:
        """Finish what waits, then let go of the threads."""
        for model in self._loaded.values():
            await model.batcher.drain()
            if model.executor is not None:
                model.executor.shutdown()

    def _load(self, name: str, version: str, folder: Path) -> LoadedModel:
        path = folder / MODEL_FILE
        digest = file_digest(path)
        if self._settings.release_keys:
            verify_release(folder, name, version, digest, self._settings.release_keys)
        session = Session(
            path,
            provider=self._provider,
            intra_op_threads=self._settings.intra_op_threads,
        )
        max_rows = self._settings.max_batch_size if session.batches else 1
        inline = _fits_inline(session, max_rows)
        executor = None if inline else ThreadPoolExecutor(1, thread_name_prefix=f"model-{name}")
        return LoadedModel(
            name=name,
            version=version,
            digest=digest,
            session=session,
            executor=executor,
            batcher=Batcher(
                session.run,
                max_rows=max_rows,
                max_queue_size=self._settings.max_queue_size,
                executor=executor,
            ),
        )


def _versions(root: Path) -> Iterator[tuple[str, str, Path]]:
    for model in sorted(path for path in root.iterdir() if path.is_dir()):
        if not _NAME.fullmatch(model.name):
            continue
        for folder in sorted(path for path in model.iterdir() if path.is_dir()):
            if folder.name.isdigit() and (folder / MODEL_FILE).is_file():
                yield model.name, folder.name, folder


def _fits_inline(session: Session, max_rows: int) -> bool:
    """Warm the session up and say whether it is cheaper to run on the event loop."""
    if session.provider != CPU:
        session.warm_up(1)
        return False
    return (
        _best_time_s(session, 1) < INLINE_BELOW_S
        and _best_time_s(session, max_rows) < INLINE_BATCH_BELOW_S
    )


def _best_time_s(session: Session, rows: int) -> float:
    best = float("inf")
    for _ in range(_WARM_RUNS):
        started = time.perf_counter()
        session.warm_up(rows)
        best = min(best, time.perf_counter() - started)
    return best
