"""What approves and keeps the policies of a site that a test puts together itself."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from coordinator import Ledger, PolicyDesk, PolicyFolder
from policies import Approvers, Bundle, BundleKeeper, add_signature, draft_document


@dataclass
class Approval:
    """Approvers with their private keys, and the desk that they come to."""

    folder: Path
    site: str
    names: tuple[str, ...] = ("alice", "bob")
    threshold: int = 2
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    log_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self):
        for name in self.names:
            self.keys[name] = Ed25519PrivateKey.generate()

    @property
    def approvers(self) -> Approvers:
        public = {name: key.public_key() for name, key in self.keys.items()}
        return Approvers(site=self.site, keys=public, threshold=self.threshold)

    @property
    def origin(self) -> str:
        return f"{self.site}/policy"

    def signed(self, document: bytes | Bundle, *names: str) -> bytes:
        """Return the document with the signatures of `names`, by default of all."""
        if isinstance(document, Bundle):
            document = draft_document(document)
        for name in names or self.names:
            document = add_signature(document, self.keys[name])
        return document

    def keeper(self, bundle: Bundle, component: str = "coordinator") -> BundleKeeper:
        copy = PolicyFolder(self.folder).seen(component)
        return BundleKeeper.open(self.approvers, copy, self.signed(bundle))

    def desk(self, now: datetime | None = None) -> PolicyDesk:
        folder = self.folder.parent / "policy-log"

        async def open_log() -> Log:
            return await Log.open(folder, origin=self.origin, key=self.log_key)

        verifier = NoteVerifier(self.origin, self.log_key.public_key())
        ledger = Ledger(open_log, folder, verifier)
        clock = {} if now is None else {"clock": lambda: now}
        return PolicyDesk(PolicyFolder(self.folder), self.approvers, ledger, **clock)
