"""Points at the installed ServerApp."""

from coordinator.federated.server import app

__all__ = ["app"]
