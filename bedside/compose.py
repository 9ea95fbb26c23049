"""Puts the parts of a gateway and a node together, as a site's configuration says."""

import asyncio
from pathlib import Path

import aiohttp

from audit.follow import LogFollower
from audit.source import LogSource
from bedside.errors import BedsideError
from bedside.site import COORDINATOR, Site
from bedside.telemetry import Telemetry
from inference_node import Node, NodeClient
from policies import BundleKeeper
from secure_gateway import (
    ConsentRegistry,
    DeviceDirectory,
    DocumentSource,
    EmbeddedNode,
    FileSource,
    Gateway,
    GatewayParts,
    MemoryBackend,
    NodeEntry,
    RemoteNode,
    ResponseCache,
    Sealer,
    Shadow,
    SiteNode,
    UrlSource,
    Webhook,
    WorkStore,
    notification_wanted,
)

EMBEDDED_NODE = "local"


async def open_gateway(site: Site, telemetry: Telemetry | None = None) -> Gateway:
    """Open everything that one gateway replica needs; the gateway closes it.

    A process of its own has `telemetry`, which lets out of its metrics what is listed.
    """
    config = site.config
    entries = config.gateway.nodes or (NodeEntry(id=EMBEDDED_NODE, jurisdiction=config.jurisdiction),)
    policies, source = await open_policies(site, config.gateway.replica)
    log = await site.open_log(config.gateway.replica)
    nodes = [await _open_node(site, entry) for entry in entries]
    coordinator_url = config.coordinator.url
    webhook = _open_webhook(site)
    gateway = Gateway(
        config.gateway,
        GatewayParts(
            site=config.site,
            jurisdiction=config.jurisdiction,
            log=log,
            policies=policies,
            policy_source=source,
            shadow=Shadow(site.bundles().approvers()),
            shadow_source=_shadow_source(site),
            tokens=site.token_verifier(),
            directory=DeviceDirectory(config.site, (site.keys.signing_key(COORDINATOR).public_key(),)),
            pseudonymizer=site.pseudonymizer(),
            nodes=nodes,
            placement_key=site.keys.signing_key("placement"),
            registry_url=f"{coordinator_url}/v1/registry" if coordinator_url else None,
            cache=_open_cache(site),
            work=await _open_work(site),
            consents=await _open_consents(site),
            webhook=webhook,
            exports=site.export_states,
            exposed=tuple if telemetry is None else telemetry.exposed,
            notifier=None if webhook is None else _notifier(site, webhook),
        ),
    )
    if telemetry is not None:
        telemetry.names.learn(gateway.models.registered)
    return gateway


async def open_policies(site: Site, component: str) -> tuple[BundleKeeper, DocumentSource]:
    """Open what `component` decides by, and where it looks for what comes after it.

    Raises:
        BedsideError, PolicyError: if no bundle that may be in force can be had.
    """
    bundles = site.bundles()
    url = site.config.coordinator.url
    copy = bundles.folder.seen(component)
    source: DocumentSource = FileSource(bundles.folder.bundle)
    if url is not None and component != COORDINATOR:
        source = UrlSource(f"{url}/v1/policy/bundle")
    document = await asyncio.to_thread(bundles.settle)
    if document is None and not copy.is_file():
        try:
            document = await source.fetch() or None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BedsideError(f"{url} gives no policies, and this machine has none") from error
    keeper = await asyncio.to_thread(BundleKeeper.open, bundles.approvers(), copy, document)
    return keeper, source


def _shadow_source(site: Site) -> DocumentSource:
    url = site.config.coordinator.url
    return (
        FileSource(site.bundles().folder.shadow)
        if url is None
        else UrlSource(f"{url}/v1/policy/shadow")
    )


def _open_webhook(site: Site) -> Webhook | None:
    settings = site.config.gateway.notify
    if settings.webhook is None or settings.secret is None:
        return None
    secret = resolve_secret(settings.secret)
    return Webhook(settings.webhook, secret, timeout_s=settings.timeout_s)


def _notifier(site: Site, webhook: Webhook) -> LogFollower:
    settings, replica = site.config.gateway.notify, site.config.gateway.replica
    return LogFollower(
        LogSource(folder=site.log_folder(replica), verifier=site.log_verifier(replica)),
        site.notify_position(replica),
        webhook,
        wanted=notification_wanted,
        retry_s=settings.retry_s,
        retry_max_s=settings.retry_max_s,
    )


async def _open_consents(site: Site) -> ConsentRegistry | None:
    settings = site.config.gateway.consent
    if not settings.registry:
        return None
    return await ConsentRegistry.open(
        site.consent_address,
        password=None if settings.password is None else resolve_secret(settings.password),
        timeout_s=settings.timeout_s,
    )


async def _open_work(site: Site) -> WorkStore | None:
    settings = site.config.gateway
    if not settings.work.enabled:
        return None
    return await WorkStore.open(
        site.work_database(settings.replica),
        Sealer(site.keys.secret("work"), "work 1"),
        settings.work,
    )


def _open_cache(site: Site) -> ResponseCache | None:
    settings = site.config.gateway.cache
    if not settings.enabled:
        return None
    secret = site.keys.secret("cache")
    if settings.url is None:
        memory = MemoryBackend(limit_bytes=settings.limit_bytes, lifetime_s=settings.lifetime_s)
        return ResponseCache(settings, secret, memory)
    # The client takes 24 MB and 0.2 s to load, which a site without a server need not pay.
    from secure_gateway.cache.redis import RedisBackend  # noqa: PLC0415

    server = RedisBackend(
        settings.url,
        lifetime_s=settings.lifetime_s,
        timeout_s=settings.timeout_s,
        rest_s=settings.rest_s,
        password=None if settings.password is None else resolve_secret(settings.password),
    )
    return ResponseCache(settings, secret, server)


async def _open_node(site: Site, entry: NodeEntry) -> SiteNode:
    candidate = entry.candidate
    if entry.url is None:
        node = Node(site.node_settings())
        await node.start()
        return EmbeddedNode(candidate, node)
    secret = None if entry.secret is None else resolve_secret(entry.secret)
    client = NodeClient(entry.url, secret=secret, models=entry.models)
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
