"""The site's own words: names that it gave itself, which may stand in a log line or a label."""

import contextlib
import re
from collections.abc import Callable
from typing import Final

from bedside.errors import BedsideError
from bedside.site import COORDINATOR, Site

_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}(/[0-9]{1,9})?")


class SiteNames:
    """Knows the names of logs, placements, models, witnesses and destinations of one site.

    A name that a caller made up is none of them, whatever it looks like.
    """

    def __init__(self, site: Site) -> None:
        config = site.config
        self._site = config.site
        self._repository = None if config.node is None else config.node.repository
        self._models = site.models
        self._logs = site.data / "logs"
        nodes = [f"node:{node.id}" for node in config.gateway.nodes] or ["node:local"]
        self._fixed = {"", "device", *nodes, *config.models, *config.export.names}
        self._fixed |= {f"{config.site}/{name}" for name in (config.gateway.replica, COORDINATOR)}
        self._fixed |= _witnesses(site)
        self._others: list[Callable[[str], bool]] = []

    def learn(self, knows: Callable[[str], bool]) -> None:
        """Let `knows` say of more names that they are the site's: a gateway's of its nodes' models."""
        self._others.append(knows)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return name in self._fixed or self._on_disk(name) or any(knows(name) for knows in self._others)

    def _on_disk(self, name: str) -> bool:
        site, _, log = name.partition("/")
        if site == self._site and _MODEL.fullmatch(log) and (self._logs / log).is_dir():
            return True
        return (
            _MODEL.fullmatch(name) is not None
            and (self._repository or self._models).joinpath(name).is_dir()
        )


def _witnesses(site: Site) -> set[str]:
    names = set()
    if site.config.witness is not None:
        names.add(site.config.witness.name)
    # Whoever needs their keys says what is wrong with them.
    with contextlib.suppress(BedsideError):
        names |= {key.name for key in site.witness_keys()}
    return names
