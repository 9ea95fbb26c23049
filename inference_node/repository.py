"""The model repository on disk: `<model>/<version>/model.onnx`, as Triton lays it out.

A version that cannot be loaded is reported with a reason and leaves all others as they are. Reading is
blocking and changes nothing; what was read is put in place in one step, on the event loop.
"""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from inference_node.errors import ModelNotReady, ModelUnknown, NodeError, RepositoryError
from inference_node.loading import LoadedModel, load_version
from inference_node.model_config import CONFIG_FILE, ModelConfig, files_of, read_config
from inference_node.oip import RepositoryEntry
from inference_node.releases import DOCUMENT
from inference_node.runtime import CPU, choose_provider
from inference_node.settings import NodeSettings

logger = logging.getLogger(__name__)

UNLOADED = "unloaded"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME_RULE = (
    "unsupported: a model's name is 1 to 128 letters of ASCII, digits, points, dashes and underscores, "
    "and begins with a letter or digit"
)
# A file system's own, at the root of a volume.
_NO_MODELS = {"lost+found"}


class Found(Struct, frozen=True, kw_only=True):
    """What was read of one model: versions that can serve, and why others cannot."""

    loaded: Mapping[str, LoadedModel]
    failed: Mapping[str, str]


class Repository:
    """Loads versions found under `settings.repository` and knows which serve."""

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

    @property
    def well(self) -> bool:
        """Whether every version that should serve does."""
        return all(reason == UNLOADED for reason in self._failed.values())

    def open(self) -> list[str]:
        """Choose the hardware and return the names of the models on disk; blocking.

        A folder whose name cannot be a model's is reported, unless it begins with a point.

        Raises:
            RepositoryError: if the folder does not exist or a GPU is asked for where none works.
        """
        root = self._settings.repository
        if not root.is_dir():
            raise RepositoryError(f"the model repository {root} is not a folder")
        self._provider = choose_provider(self._settings.device)
        folders = sorted(path.name for path in root.iterdir() if path.is_dir())
        for name in folders:
            if not (_NAME.fullmatch(name) or name.startswith(".") or name in _NO_MODELS):
                shown = _shown(name)
                self._failed[shown, ""] = _reason(shown, ModelNotReady(_NAME_RULE))
        return [name for name in folders if _NAME.fullmatch(name)]

    def read(self, name: str) -> Found:
        """Load and warm up the versions of one model beside those that serve; blocking.

        Raises:
            ModelUnknown: if there is no such folder.
            ModelNotReady: if there is one, and its name cannot be a model's.
        """
        if not _NAME.fullmatch(name) and (name, "") in self._failed:
            raise ModelNotReady(_NAME_RULE)
        if not _NAME.fullmatch(name) or not (folder := self._settings.repository / name).is_dir():
            raise ModelUnknown("the repository has no such model")
        root = self._settings.repository
        on_disk: list[str] = []
        unread = "broken: the model's folder cannot be read"
        try:
            on_disk = _on_disk(folder)
            unread = "broken: config.pbtxt cannot be read"
            refuse_outside(root, folder, folder / CONFIG_FILE)
            config = read_config(folder)
            refuse_outside(root, *files_of(config))
        except (NodeError, OSError) as error:
            reason = _reason(name, error, unread)
            return Found(loaded={}, failed=dict.fromkeys(on_disk or [""], reason))
        loaded: dict[str, LoadedModel] = {}
        failed: dict[str, str] = {}
        versions = _chosen(config, on_disk)
        if not versions:
            failed[""] = _reason(name, ModelNotReady("missing: it has no version"))
        for version in versions:
            try:
                if version not in on_disk:
                    raise ModelNotReady("missing: version_policy names it and it is not on disk")
                loaded[version] = self._load(folder, version, config)
            except (NodeError, OSError) as error:
                failed[version] = _reason(f"{name}/{version}", error, "broken: a file cannot be read")
        return Found(loaded=loaded, failed=failed)

    def _load(self, folder: Path, version: str, config: ModelConfig) -> LoadedModel:
        path = folder / version
        refuse_outside(self._settings.repository, path, path / config.model_file, path / DOCUMENT)
        if (path / config.model_file).is_dir():
            raise ModelNotReady(
                f"unsafe: default_model_filename: {config.model_file} is a folder, "
                "and a model must be one file"
            )
        if not (path / config.model_file).is_file():
            raise ModelNotReady(f"missing: it has no {config.model_file}")
        return load_version(path, folder.name, version, config, self._settings, self._provider)

    def swap(self, name: str, found: Found) -> list[LoadedModel]:
        """Serve what was read instead of what served so far; return what is to be retired.

        A load that fails takes nothing away, as with Triton: what could not be read again, or was not
        found, goes on serving as it was. Files may be on their way.
        """
        replaced = [
            key
            for key in self._loaded
            if key[0] == name and (key[1] in found.loaded or not found.failed)
        ]
        retired = [self._loaded.pop(key) for key in replaced]
        for key in [key for key in self._failed if key[0] == name]:
            del self._failed[key]
        for version, model in found.loaded.items():
            self._loaded[name, version] = model
        for version, reason in found.failed.items():
            self._failed[name, version] = reason
        self._choose_latest(name)
        return retired

    def remove(self, name: str) -> list[LoadedModel]:
        """Stop serving a model; return what is to be retired.

        Raises:
            ModelUnknown: if it is not there.
        """
        keys = [key for key in (*self._loaded, *self._failed) if key[0] == name]
        if not keys:
            raise ModelUnknown("the repository has no such model")
        retired = [self._loaded.pop(key) for key in keys if key in self._loaded]
        self._failed.update(dict.fromkeys(keys, UNLOADED))
        self._choose_latest(name)
        return retired

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
            raise ModelNotReady("no version of the model is loaded")
        raise ModelUnknown("the repository has no such model or version")

    def serving(self, name: str | None = None, version: str | None = None) -> list[LoadedModel]:
        """Return the models that serve, of one name or version if given, in order.

        Raises:
            ModelUnknown, ModelNotReady: if what is named does not serve.
        """
        if name is not None and version is not None:
            return [self.find(name, version)]
        if name is not None:
            self.find(name, None)
        keys = sorted((key for key in self._loaded if name in (None, key[0])), key=_order)
        return [self._loaded[key] for key in keys]

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model that serve, lowest first."""
        return tuple(sorted((version for own, version in self._loaded if own == name), key=int))

    def index(self) -> list[RepositoryEntry]:
        """Return every version found, with its state.

        A version that serves and could not be read again is ready, with the reason.
        """
        ready = [
            RepositoryEntry(
                name=name,
                version=version,
                state="READY",
                reason=self._failed.get((name, version), ""),
                digest=model.digest,
            )
            for (name, version), model in self._loaded.items()
        ]
        failed = [
            RepositoryEntry(name=name, version=version, state="UNAVAILABLE", reason=reason)
            for (name, version), reason in self._failed.items()
            if (name, version) not in self._loaded
        ]
        return sorted(ready + failed, key=lambda entry: _order((entry.name, entry.version)))

    def _choose_latest(self, name: str) -> None:
        versions = self.versions(name)
        if versions:
            self._latest[name] = versions[-1]
        else:
            self._latest.pop(name, None)


def _order(key: tuple[str, str]) -> tuple[str, int]:
    return key[0], int(key[1] or 0)


def _reason(name: str, error: NodeError | OSError, unread: str = "") -> str:
    """Log that `name` is not served and return why: `unread` where the system gave an error."""
    logger.warning("model %s is not served: %s", name, error)
    return str(error) if isinstance(error, NodeError) else unread


def _shown(name: str) -> str:
    """Return a folder's name with a mark for all that would not be seen, or would be obeyed."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _on_disk(folder: Path) -> list[str]:
    """Return the version folders of a model, lowest first.

    As with Triton, what is not a number or begins with 0 is no version.
    """
    versions = [
        path.name
        for path in folder.iterdir()
        if path.name.isascii()
        and path.name.isdigit()
        and not path.name.startswith("0")
        and path.is_dir()
    ]
    return sorted(versions, key=int)


def _chosen(config: ModelConfig, on_disk: list[str]) -> list[str]:
    """Return the versions that should serve, lowest first, whether or not they can."""
    if config.specific:
        return [str(version) for version in sorted(set(config.specific))]
    return on_disk[-config.latest :] if config.latest else on_disk


def refuse_outside(root: Path, *paths: Path) -> None:
    """Refuse files that a symbolic link takes from elsewhere; who may write a link decides no more.

    Raises:
        ModelNotReady: if one of `paths` is, once links are followed, not under `root`.
    """
    # Not `Path.resolve`, which raises an error of its own where links lead in a circle.
    inside = os.path.realpath(root)
    if not all(Path(os.path.realpath(path)).is_relative_to(inside) for path in paths):
        raise ModelNotReady("unsafe: a symbolic link leads out of the repository")
