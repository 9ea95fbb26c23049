"""One embedded site: where its files are, and the parts that its keys and settings make.

<data>/keys/           Ed25519 keys and secrets, mode 0600
<data>/policy/         the signed policy bundle
<data>/models/         the model repository (Triton's layout, each version with its release)
<data>/logs/<replica>/ one transparency log for each writer
<data>/coordinator/    the coordinator's database and Flower's private files
"""

from pathlib import Path

from audit import Log, NoteVerifier, Pseudonymizer
from bedside.config import Config
from bedside.errors import BedsideError
from bedside.keys import KeyFolder
from coordinator import ReleaseFolder
from inference_node import NodeSettings
from policies import (
    Bundle,
    BundleInvalid,
    BundleUntrusted,
    Engine,
    ModelAccess,
    TokenIssuer,
    TokenVerifier,
    build_bundle,
    sign,
    verify,
)

COORDINATOR = "coordinator"


class Site:
    """Opens what belongs to one site, from its configuration and data folder."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data = config.data.expanduser().resolve()
        self.keys = KeyFolder(self.data / "keys")

    @property
    def models(self) -> Path:
        """The model repository."""
        return self.data / "models"

    def log_folder(self, replica: str) -> Path:
        """Where the log of `replica` is."""
        return self.data / "logs" / replica

    def log_folders(self) -> list[Path]:
        """Every log of this site."""
        root = self.data / "logs"
        return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

    def log_verifier(self, replica: str) -> NoteVerifier:
        """The key that verifies the checkpoints of the log of `replica`."""
        key = self.keys.signing_key(f"log-{replica}")
        return NoteVerifier(f"{self.config.site}/{replica}", key.public_key())

    async def open_log(self, replica: str) -> Log:
        """Open the log of `replica` for writing."""
        return await Log.open(
            self.log_folder(replica),
            origin=f"{self.config.site}/{replica}",
            key=self.keys.signing_key(f"log-{replica}"),
        )

    def pseudonymizer(self) -> Pseudonymizer:
        """What turns this organisation's subjects into pseudonyms."""
        return Pseudonymizer(self.keys.secret("pseudonym"))

    def token_issuer(self) -> TokenIssuer:
        """The embedded issuer of bearer tokens."""
        return TokenIssuer(self.keys.signing_key("issuer"), self.config.site)

    def token_verifier(self) -> TokenVerifier:
        """What accepts the embedded issuer's tokens."""
        return TokenVerifier([self.keys.signing_key("issuer").public_key()], self.config.site)

    def releases(self) -> ReleaseFolder:
        """The site's published releases."""
        return ReleaseFolder(self.models, [self.keys.signing_key("release").public_key()])

    def node_settings(self) -> NodeSettings:
        """The node's settings; by default it serves the site's signed releases and nothing else."""
        if self.config.node is not None:
            return self.config.node
        self.models.mkdir(parents=True, exist_ok=True)
        key = self.keys.signing_key("release").public_key().public_bytes_raw().hex()
        return NodeSettings(repository=self.models, release_keys=(key,))

    def engine(self) -> Engine:
        """The decision engine, with the site's current bundle."""
        return Engine(self.bundle())

    def bundle(self) -> Bundle:
        """Return the site's bundle: the signed one, or a newer one if packs or models changed.

        Raises:
            BedsideError: if the stored bundle is not trusted, or the packs do not validate.
        """
        key = self.keys.signing_key("policy")
        path = self.data / "policy" / "bundle.json"
        current = None
        try:
            if path.exists():
                current = verify(path.read_bytes(), [key.public_key()])
            version = current.version if current else 1
            bundle = self._build(version)
            if current is not None and bundle.digest() == current.digest():
                return current
            if current is not None:
                bundle = self._build(version + 1)
        except (BundleInvalid, BundleUntrusted) as error:
            raise BedsideError(f"policy: {error}") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(sign(bundle, [key]))
        temporary.replace(path)
        return bundle

    def _build(self, version: int) -> Bundle:
        models = {
            name: ModelAccess(roles=entry.roles, purposes=entry.purposes)
            for name, entry in self.config.models.items()
        }
        return build_bundle(
            self.config.policy.packs,
            name=self.config.site,
            version=version,
            models=models,
            residency=self.config.policy.residency,
        )
