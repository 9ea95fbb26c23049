"""Puts the parts of a gateway and a node together, as a site's configuration says."""

from pathlib import Path

from bedside.errors import BedsideError
from bedside.site import COORDINATOR, Site
from inference_node import Node, NodeClient
from policies import Candidate, PlacementKind
from secure_gateway import (
    DeviceDirectory,
    EmbeddedNode,
    Gateway,
    GatewayParts,
    NodeEntry,
    RemoteNode,
    SiteNode,
)

EMBEDDED_NODE = "local"


async def open_gateway(site: Site) -> Gateway:
    """Open everything that one gateway replica needs; the gateway closes it."""
    config = site.config
    entries = config.gateway.nodes or (NodeEntry(id=EMBEDDED_NODE, jurisdiction=config.jurisdiction),)
    engine = site.engine()
    log = await site.open_log(config.gateway.replica)
    nodes = [await _open_node(site, entry) for entry in entries]
    coordinator_url = config.coordinator.url
    return Gateway(
        config.gateway,
        GatewayParts(
            site=config.site,
            jurisdiction=config.jurisdiction,
            log=log,
            engine=engine,
            tokens=site.token_verifier(),
            directory=DeviceDirectory(config.site, (site.keys.signing_key(COORDINATOR).public_key(),)),
            pseudonymizer=site.pseudonymizer(),
            nodes=nodes,
            placement_key=site.keys.signing_key("placement"),
            registry_url=f"{coordinator_url}/v1/registry" if coordinator_url else None,
        ),
    )


async def _open_node(site: Site, entry: NodeEntry) -> SiteNode:
    candidate = Candidate(
        placement=f"node:{entry.id}",
        kind=PlacementKind.NODE,
        jurisdiction=entry.jurisdiction,
        on_premises=entry.on_premises,
        agreement=entry.agreement,
    )
    if entry.url is None:
        node = Node(site.node_settings())
        await node.start()
        return EmbeddedNode(candidate, node)
    secret = None if entry.secret is None else resolve_secret(entry.secret)
    client = NodeClient(entry.url, secret=secret)
    return RemoteNode(candidate, client, site.config.gateway.node_timeout_s)


def resolve_secret(reference: str) -> str:
    """Return the secret that a reference names; only `file:<path>` so far.

    Raises:
        BedsideError: if it is no reference, so that a secret cannot stand in the configuration.
    """
    kind, _, place = reference.partition(":")
    if kind != "file" or not place:
        raise BedsideError("a secret is given by reference, as `file:/path/to/it`, never by value")
    try:
        return Path(place).read_text().strip()
    except OSError as error:
        raise BedsideError(f"the secret {place} cannot be read: {error.strerror}") from error
