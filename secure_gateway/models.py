"""Which models the site serves, gathered from its nodes."""

from collections.abc import Iterable

from secure_gateway.exchange import ModelInfo


class ModelIndex:
    """Resolves a model's name and version; a lookup is one dictionary access.

    Each node reports what it serves. Without a version the highest one that any node serves is
    meant. Versions are compared as numbers where they are digits.
    """

    def __init__(self) -> None:
        self._sources: dict[str, tuple[ModelInfo, ...]] = {}
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

    def find(self, name: str, version: str | None) -> ModelInfo | None:
        """Return the model, or None if no place serves it."""
        return self._found.get((name, version or None))

    def serves(self, placement: str, model: ModelInfo) -> bool:
        """Say whether `placement` serves exactly this model and version."""
        return any(
            own.name == model.name and own.version == model.version
            for own in self._sources.get(placement, ())
        )

    def models(self) -> list[ModelInfo]:
        """Return every model and version, ordered by name, then version."""
        return sorted(
            {(model.name, model.version): model for model in self._found.values()}.values(),
            key=lambda model: (model.name, *_version_order(model)),
        )


def _version_order(model: ModelInfo) -> tuple[int, str]:
    return (int(model.version) if model.version.isdigit() else 0, model.version)
