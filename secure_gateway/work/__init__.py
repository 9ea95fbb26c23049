"""Asynchronous work: submitted now, run when there is room, its result fetched once."""

from secure_gateway.work.routes import WorkApi
from secure_gateway.work.runner import WorkRunner
from secure_gateway.work.settings import WorkSettings
from secure_gateway.work.store import WorkStore

__all__ = ["WorkApi", "WorkRunner", "WorkSettings", "WorkStore"]
