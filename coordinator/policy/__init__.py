"""The life of a site's policies, from draft to rollback; each step is recorded."""

from coordinator.policy.desk import PolicyDesk
from coordinator.policy.folder import PolicyFolder
from coordinator.policy.ledger import Ledger

__all__ = ["Ledger", "PolicyDesk", "PolicyFolder"]
