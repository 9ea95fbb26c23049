"""One gateway replica: its parts put together, started in order and closed in reverse."""

import asyncio
from collections.abc import Callable, Iterable, Sequence, Sized

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from prometheus_client.registry import Collector

from audit import Log
from audit.export import ExportState
from audit.follow import LogFollower
from audit.pseudonyms import Pseudonymizer
from inference_node import NodeCollector
from policies import BundleKeeper, DeviceVerifier, Engine, TokenVerifier
from secure_gateway.admission import BreakGlassLimit, CallerLimits, Door
from secure_gateway.admission.restore import emergencies_lately, let_in_today
from secure_gateway.authenticate import Authenticator
from secure_gateway.cache import ResponseCache
from secure_gateway.channel import DeviceHub
from secure_gateway.consent import ConsentRegistry, Consents
from secure_gateway.consent.reconsider import Reconsideration
from secure_gateway.consent.routes import ConsentApi
from secure_gateway.decide import Decider
from secure_gateway.describe import Describer
from secure_gateway.directory import DeviceDirectory
from secure_gateway.execute import Executor
from secure_gateway.fulfil import Fulfiller
from secure_gateway.metrics import GatewayCollector
from secure_gateway.models import ModelIndex
from secure_gateway.nodes import EmbeddedNode, NodeProber, SiteNode
from secure_gateway.notify import Webhook
from secure_gateway.operations import Operations
from secure_gateway.pipeline import Pipeline
from secure_gateway.policy_feed import DocumentSource, PolicyFeed
from secure_gateway.record import Recorder
from secure_gateway.registry_poll import RegistryPoll
from secure_gateway.route import Router
from secure_gateway.settings import GatewaySettings
from secure_gateway.shadow import Shadow
from secure_gateway.threshold import Threshold
from secure_gateway.work import WorkApi, WorkRunner, WorkStore


class GatewayParts(Struct, frozen=True, kw_only=True):
    """What a gateway is made of; whoever composes it opens these, the gateway closes them."""

    site: str
    jurisdiction: str
    log: Log
    policies: BundleKeeper
    policy_source: DocumentSource
    shadow: Shadow
    shadow_source: DocumentSource
    tokens: TokenVerifier
    directory: DeviceDirectory
    pseudonymizer: Pseudonymizer
    nodes: Sequence[SiteNode]
    placement_key: Ed25519PrivateKey
    registry_url: str | None = None
    cache: ResponseCache | None = None
    work: WorkStore | None = None
    consents: ConsentRegistry | None = None
    webhook: Webhook | None = None
    notifier: LogFollower | None = None
    exports: Callable[[], Iterable[ExportState]] = tuple
    exposed: Callable[[Sequence[Collector]], tuple[Collector, ...]] = tuple

    @property
    def engine(self) -> Engine:
        """What decides, by the policies in force."""
        return self.policies.engine


class Gateway:
    """Everything that serves requests at one site, behind one pipeline."""

    def __init__(self, settings: GatewaySettings, parts: GatewayParts) -> None:
        self.settings = settings
        self.parts = parts
        self.models = ModelIndex()
        self.hub = DeviceHub()
        self._nodes = {node.placement: node for node in parts.nodes}
        self._prober = NodeProber(self._nodes, self.models)
        self._poll = RegistryPoll(parts.directory, parts.registry_url, settings.registry_poll_s)
        self._policies = PolicyFeed(
            parts.policies,
            parts.policy_source,
            parts.shadow,
            parts.shadow_source,
            log=parts.log,
            interval_s=settings.policy_poll_s,
        )
        parts.directory.on_revocation(self.hub.revoke)
        self.authenticator = Authenticator(
            parts.tokens, DeviceVerifier(parts.directory.key_of, parts.site)
        )
        self.recorder = Recorder(parts.log)
        self._callers = CallerLimits(settings.limits)
        self._emergencies = BreakGlassLimit(settings.limits.break_glass_per_hour)
        self.door = door = Door(
            settings.admission, self._callers, self._emergencies, self.models.registered
        )
        self.threshold = Threshold(door, self.authenticator, self.recorder.refusals)
        self.unread: dict[str, Sized] = {}
        """The connections that are left unread, by the reason; whoever serves them puts them in."""
        self.pipeline = Pipeline(
            authenticator=self.authenticator,
            door=door,
            describer=Describer(
                jurisdiction=parts.jurisdiction,
                models=self.models,
                directory=parts.directory,
                pseudonymizer=parts.pseudonymizer,
                consents=Consents(parts.consents, claims=settings.consent.believes_claims),
            ),
            decider=Decider(
                parts.engine,
                [node.candidate for node in parts.nodes],
                parts.directory,
                parts.shadow,
            ),
            router=Router(self._nodes, self.models),
            executor=Executor(
                self._nodes,
                self.models,
                self.hub,
                device_timeout_s=settings.device_timeout_s,
            ),
            recorder=self.recorder,
            fulfiller=Fulfiller(notifies=parts.notifier is not None),
            cache=parts.cache,
        )
        self.operations = Operations(self.pipeline, self._nodes, self.models, self._prober)
        collectors: tuple[Collector, ...] = (
            GatewayCollector(
                requests=self.recorder.counters,
                door=door,
                nodes=self._nodes,
                hub=self.hub,
                log=parts.log,
                cache=parts.cache,
                policies=parts.policies,
                shadow=parts.shadow,
                exports=parts.exports,
                unread=self.unread,
            ),
            *(NodeCollector(node.node) for node in parts.nodes if isinstance(node, EmbeddedNode)),
        )
        self.collectors = parts.exposed(collectors)
        self.consent_api: ConsentApi | None = None
        if parts.consents is not None:
            self.consent_api = ConsentApi(
                parts.consents,
                settings.consent,
                authenticator=self.authenticator,
                pipeline=self.pipeline,
                recorder=self.recorder,
                pseudonymizer=parts.pseudonymizer,
                directory=parts.directory,
                models=lambda: parts.engine.bundle.models,
            )
        self._work: WorkRunner | None = None
        self.work_api: WorkApi | None = None
        if parts.work is not None:
            self._work = WorkRunner(
                parts.work,
                self.pipeline,
                self.recorder,
                concurrency=settings.work.concurrency,
                enrolled=lambda device: parts.directory.key_of(device) is not None,
            )
            self.work_api = WorkApi(
                parts.work,
                self._work,
                settings.work,
                engine=parts.engine,
                authenticator=self.authenticator,
                pipeline=self.pipeline,
                recorder=self.recorder,
                reconsideration=Reconsideration(parts.consents, parts.engine),
                body_limit_bytes=settings.body_limit_bytes,
            )

    @property
    def ready(self) -> bool:
        """Whether requests can be served: the log takes records and some node answers."""
        return self.parts.log.writable and any(node.ready for node in self._nodes.values())

    async def start(self) -> None:
        """Find out what the nodes serve and which devices are enrolled."""
        if self._callers.counts_days:
            self._callers.restore(await asyncio.to_thread(let_in_today, self.parts.log))
        if self.settings.limits.break_glass_per_hour is not None:
            self._emergencies.restore(await asyncio.to_thread(emergencies_lately, self.parts.log))
        await self._policies.start()
        if self.parts.notifier is not None:
            await self.parts.notifier.start()
        await self._prober.start()
        await self._poll.start()
        if self._work is not None:
            self._work.start()

    async def close(self) -> None:
        """Stop background work, drop device channels, drain nodes and close the log last."""
        if self._work is not None:
            await self._work.close()
        await self._poll.close()
        await self._policies.close()
        await self._prober.close()
        await self.hub.close()
        for node in self._nodes.values():
            await node.close()
        if self.parts.cache is not None:
            await self.parts.cache.close()
        if self.parts.consents is not None:
            await self.parts.consents.close()
        if self.parts.notifier is not None:
            await self.parts.notifier.close()
        if self.parts.webhook is not None:
            await self.parts.webhook.close()
        await self.parts.log.close()
