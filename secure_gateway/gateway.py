"""One gateway replica: its parts put together, started in order and closed in reverse."""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from audit import Log
from audit.pseudonyms import Pseudonymizer
from inference_node import ModelMetadata
from policies import DeviceVerifier, Engine, TokenVerifier
from secure_gateway.authenticate import Authenticator
from secure_gateway.channel import DeviceHub
from secure_gateway.decide import Decider
from secure_gateway.describe import Describer
from secure_gateway.directory import DeviceDirectory
from secure_gateway.exchange import ModelInfo
from secure_gateway.execute import Executor
from secure_gateway.models import ModelIndex
from secure_gateway.nodes import NodeProber, SiteNode
from secure_gateway.pipeline import Pipeline
from secure_gateway.record import Recorder
from secure_gateway.registry_poll import RegistryPoll
from secure_gateway.route import Router
from secure_gateway.settings import GatewaySettings


class GatewayParts(Struct, frozen=True, kw_only=True):
    """What a gateway is made of; whoever composes it opens these, the gateway closes them."""

    site: str
    jurisdiction: str
    log: Log
    engine: Engine
    tokens: TokenVerifier
    directory: DeviceDirectory
    pseudonymizer: Pseudonymizer
    nodes: Sequence[SiteNode]
    placement_key: Ed25519PrivateKey
    registry_url: str | None = None


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
        parts.directory.on_revocation(self.hub.revoke)
        self.authenticator = Authenticator(
            parts.tokens, DeviceVerifier(parts.directory.key_of, parts.site)
        )
        self.recorder = Recorder(parts.log)
        self.pipeline = Pipeline(
            authenticator=self.authenticator,
            describer=Describer(
                jurisdiction=parts.jurisdiction,
                models=self.models,
                directory=parts.directory,
                pseudonymizer=parts.pseudonymizer,
            ),
            decider=Decider(parts.engine, [node.candidate for node in parts.nodes], parts.directory),
            router=Router(self._nodes, self.models),
            executor=Executor(
                self._nodes,
                self.models,
                self.hub,
                device_timeout_s=settings.device_timeout_s,
            ),
            recorder=self.recorder,
        )

    @property
    def ready(self) -> bool:
        """Whether requests can be served: the log takes records and some node answers."""
        return self.parts.log.writable and any(node.ready for node in self._nodes.values())

    async def start(self) -> None:
        """Find out what the nodes serve and which devices are enrolled."""
        await self._prober.start()
        await self._poll.start()

    async def close(self) -> None:
        """Stop background work, drop device channels, drain nodes and close the log last."""
        await self._poll.close()
        await self._prober.close()
        await self.hub.close()
        for node in self._nodes.values():
            await node.close()
        await self.parts.log.close()

    async def metadata(self, model: ModelInfo) -> ModelMetadata:
        """Return the inputs and outputs of a model, from a ready node that serves it."""
        for placement, node in self._nodes.items():
            if node.ready and self.models.serves(placement, model):
                return await node.metadata(model)
        message = "a model in the index is served by a node"
        raise AssertionError(message)
