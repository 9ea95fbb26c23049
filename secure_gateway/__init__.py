"""The data plane: it decides where a request may run, runs it there, records it, then answers."""

from secure_gateway.directory import DeviceDirectory
from secure_gateway.errors import GatewayError, RegistryError
from secure_gateway.gateway import Gateway, GatewayParts
from secure_gateway.nodes import EmbeddedNode, RemoteNode, SiteNode
from secure_gateway.settings import GatewaySettings, NodeEntry

__all__ = [
    "DeviceDirectory",
    "EmbeddedNode",
    "Gateway",
    "GatewayError",
    "GatewayParts",
    "GatewaySettings",
    "NodeEntry",
    "RegistryError",
    "RemoteNode",
    "SiteNode",
]
