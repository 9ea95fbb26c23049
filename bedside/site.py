"""One embedded site: where its files are, and the parts that its keys and settings make.

<data>/keys/           Ed25519 keys and secrets, mode 0600
<data>/policy/         the signed policy bundle, and its past (bedside.bundles)
<data>/models/         the model repository (Triton's layout, each version with its release)
<data>/logs/<replica>/ one transparency log for each writer
<data>/consent/        the registry of consents, under pseudonyms
<data>/notify/         up to which record somebody was told, for each gateway replica
<data>/export/         up to which record each destination of an export was sent each log
<data>/work/           one database of queued work for each gateway replica, sealed
<data>/witness/        what this machine cosigned, if it is a witness of others' logs
<data>/console/        the console's accounts and sessions, and reports that wait to be fetched
<data>/coordinator/    the coordinator's database, ordered reports, and Flower's private files
"""

from collections.abc import Iterator
from pathlib import Path

from audit import (
    Log,
    NoteVerifier,
    Pseudonymizer,
    VerificationError,
    WitnessEntry,
    Witnesses,
    WitnessKey,
)
from audit.export import ExportState, export_states
from audit.reports import LogSource
from audit.reports.making import ReportMaker
from audit.retention import PruneOrders
from bedside.bundles import SiteBundles
from bedside.config import Config
from bedside.errors import BedsideError
from bedside.keys import KeyFolder
from coordinator import Ledger, PolicyDesk, ReleaseFolder
from inference_node import NodeSettings
from policies import Bundle, Engine, TokenIssuer, TokenVerifier
from secure_gateway.ids import new_id

ACCOUNTS = "accounts"
CONSOLE = "console"
COORDINATOR = "coordinator"
ERASURES = "erasures"
POLICY = "policy"
REPORTS = "reports"
RETENTION = "retention"
REVIEWS = "reviews"

# The site's logs beside those of its gateways. What they say takes effect at once, witnessed or not: a
# hold must be seen by whoever prunes though no witness answers.
SITE_LOGS = (ACCOUNTS, CONSOLE, COORDINATOR, ERASURES, POLICY, REPORTS, RETENTION, REVIEWS)

# What says which policies were published, and what was held and pruned, stays whole.
KEPT_WHOLE = (POLICY, RETENTION)


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

    def work_database(self, replica: str) -> Path:
        """Where the gateway `replica` keeps queued work."""
        return self.data / "work" / f"{replica}.sqlite"

    def notify_position(self, replica: str) -> Path:
        """Where the gateway `replica` keeps up to which record it told somebody."""
        return self.data / "notify" / f"{replica}.json"

    @property
    def export_folder(self) -> Path:
        """Where it is kept how far each destination of an export got."""
        return self.data / "export"

    def report_maker(self) -> ReportMaker:
        """What makes this site's reports, and records each."""
        source = LogSource(folder=self.log_folder(REPORTS), verifier=self.log_verifier(REPORTS))
        return ReportMaker(
            self.config.site, self.log_sources, lambda: self.open_log(REPORTS), source, new_id
        )

    def export_states(self) -> Iterator[ExportState]:
        """Yield how far each destination of the export got in each log here."""
        return export_states(self.export_folder, self.config.export.names, self.log_sources())

    @property
    def consent_address(self) -> str:
        """Where the site's consents are kept."""
        place = self.config.gateway.consent.database
        return place or f"sqlite:///{self.data / 'consent' / 'consent.sqlite'}"

    @property
    def index_address(self) -> str:
        """Where the search index over the site's logs is."""
        return self.config.audit.index or f"sqlite:///{self.data / 'audit' / 'index.sqlite'}"

    def log_sources(self) -> list[LogSource]:
        """Every log of this site, with the key that verifies it."""
        return [
            LogSource(folder=folder, verifier=self.log_verifier(folder.name))
            for folder in self.log_folders()
        ]

    def log_verifier(self, replica: str) -> NoteVerifier:
        """The key that verifies the checkpoints of the log of `replica`."""
        key = self.keys.signing_key(f"log-{replica}")
        return NoteVerifier(f"{self.config.site}/{replica}", key.public_key())

    async def open_log(self, replica: str) -> Log:
        """Open the log of `replica` for writing; the site's witnesses, if it has any, are shown it.

        Raises:
            BedsideError: if a witness's key is none, or is there twice.
        """
        of_gateway = replica not in SITE_LOGS
        return await Log.open(
            self.log_folder(replica),
            origin=f"{self.config.site}/{replica}",
            key=self.keys.signing_key(f"log-{replica}"),
            witnesses=self.witnesses(),
            refuse_after_s=self.config.audit.witnesses.refuse_after_s if of_gateway else None,
            withheld=of_gateway,
            orders=None if replica in KEPT_WHOLE else self.prune_orders(),
        )

    def prune_orders(self) -> PruneOrders:
        """What the site decided to keep and to prune."""
        return PruneOrders(
            LogSource(folder=self.log_folder(RETENTION), verifier=self.log_verifier(RETENTION))
        )

    def witness_keys(self) -> list[WitnessKey]:
        """The keys of the witnesses that must have seen the logs' checkpoints.

        Raises:
            BedsideError: if one of them is no witness's key.
        """
        try:
            return [WitnessKey.parse(member.key) for member in self.config.audit.witnesses.members]
        except VerificationError as error:
            raise BedsideError(f"audit.witnesses.members: {error}") from error

    def witnesses(self) -> Witnesses | None:
        """Who must see a log's checkpoints; None for nobody. Each log has them for itself.

        Raises:
            BedsideError: if a witness's key is none, or is there twice.
        """
        settings = self.config.audit.witnesses
        urls = [member.url for member in settings.members]
        entries = list(map(WitnessEntry, urls, self.witness_keys()))
        if not entries:
            return None
        try:
            return Witnesses(entries, quorum=settings.quorum, interval_s=settings.interval_s)
        except ValueError as error:
            raise BedsideError(f"audit.witnesses: {error}") from error

    def witness_memory(self) -> Path:
        """Where this machine remembers what it cosigned, if it is a witness."""
        return self.data / "witness" / "memory.sqlite"

    def pseudonymizer(self) -> Pseudonymizer:
        """What turns this organisation's subjects into pseudonyms."""
        replaced = self.keys.pseudonym_key_replaced()
        return Pseudonymizer(self.keys.pseudonym_key(), reload=replaced)

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

    def bundles(self) -> SiteBundles:
        """The site's policy bundles."""
        return SiteBundles(self.config, self.data / "policy", lambda: self.keys.signing_key("policy"))

    def bundle(self) -> Bundle:
        """Return the bundle in force; without approvers, the one that the next start will make.

        Raises:
            BedsideError: if there is none, it is not trusted, or the packs do not validate.
        """
        return self.bundles().current()

    def policy_desk(self) -> PolicyDesk:
        """What takes the steps of a policy bundle's life."""
        bundles = self.bundles()
        ledger = Ledger(
            lambda: self.open_log(POLICY), self.log_folder(POLICY), self.log_verifier(POLICY)
        )
        return PolicyDesk(bundles.folder, bundles.approvers(), ledger)

    def engine(self) -> Engine:
        """The decision engine with that bundle, to ask questions of it."""
        return Engine(self.bundle())
