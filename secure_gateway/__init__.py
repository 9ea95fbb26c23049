"""The data plane: it decides where a request may run, runs it there, records it, then answers."""

from secure_gateway.cache import MemoryBackend, ResponseCache
from secure_gateway.consent import ConsentRegistry
from secure_gateway.directory import DeviceDirectory
from secure_gateway.errors import GatewayError, RegistryError
from secure_gateway.gateway import Gateway, GatewayParts
from secure_gateway.nodes import EmbeddedNode, RemoteNode, SiteNode
from secure_gateway.notify import Webhook, notification_wanted
from secure_gateway.policy_feed import DocumentSource, FileSource, UrlSource
from secure_gateway.sealing import Sealer
from secure_gateway.settings import GatewaySettings, NodeEntry
from secure_gateway.shadow import Shadow
from secure_gateway.work import WorkStore

__all__ = [
    "ConsentRegistry",
    "DeviceDirectory",
    "DocumentSource",
    "EmbeddedNode",
    "FileSource",
    "Gateway",
    "GatewayError",
    "GatewayParts",
    "GatewaySettings",
    "MemoryBackend",
    "NodeEntry",
    "RegistryError",
    "RemoteNode",
    "ResponseCache",
    "Sealer",
    "Shadow",
    "SiteNode",
    "UrlSource",
    "Webhook",
    "WorkStore",
    "notification_wanted",
]
