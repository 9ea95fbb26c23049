"""Which models the site serves, gathered from its nodes."""

from collections.abc import Iterable

from audit.records import Problem
from secure_gateway.errors import Refusal
from secure_gateway.exchange import ModelInfo


class ModelIndex:
    """Resolves a model's name and version; a lookup is one dictionary access.

    Each node reports what it serves. Without a version the highest one that any node serves is
    meant. Versions are compared as numbers where they are digits.
    """

    def __init__(self) -> None:
        self._sources: dict[str, tuple[ModelInfo, ...]] = {}
        self._served: dict[tuple[str, str, str], ModelInfo] = {}
        self._found: dict[tuple[str, str | None], ModelInfo] = {}

    def update(self, placement: str, models: Iterable[ModelInfo]) -> None:
        """Replace what `placement` serves."""
        reported = tuple(models)
        if reported:
            self._sources[placement] = reported
        else:
            self._sources.pop(placement, None)
        found: dict[tuple[str, str | None], ModelInfo] = {}
        for model in sorted(
            (model for models in self._sources.values() for model in models), key=_version_order
        ):
            found[model.name, model.version] = model
            found[model.name, None] = model
        self._found = found
        self._served = {
            (source, model.name, model.version): model
            for source, models in self._sources.items()
            for model in models
        }

    def find(self, name: str, version: str | None) -> ModelInfo | None:
        """Return the model, or None if no place serves it."""
        return self._found.get((name, version or None))

    def resolve(self, name: str | None, version: str | None) -> ModelInfo:
        """Return the model that is meant.

        Raises:
            Refusal: model-unknown.
        """
        model = self.find(name, version) if name is not None else None
        if model is None:
            raise Refusal(Problem.MODEL_UNKNOWN, "This site serves no model of that name and version.")
        return model

    def registered(self, name: str) -> bool:
        """Say whether any place serves a model of this name."""
        return (name, None) in self._found

    def served(self, placement: str, model: ModelInfo) -> ModelInfo | None:
        """Return what `placement` serves under the name and version of `model`, or None.

        Its digest is the place's own: a server that is not ours names none.
        """
        return self._served.get((placement, model.name, model.version))

    def models(self) -> list[ModelInfo]:
        """Return every model and version, ordered by name, then version."""
        return sorted(
            {(model.name, model.version): model for model in self._found.values()}.values(),
            key=lambda model: (model.name, *_version_order(model)),
        )


def _version_order(model: ModelInfo) -> tuple[int, str]:
    return (int(model.version) if model.version.isdigit() else 0, model.version)
