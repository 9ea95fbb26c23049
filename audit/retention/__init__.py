"""How long records are kept: legal holds, what is past its retention, and its removal from a log."""

from audit.retention.holds import Hold, active_holds
from audit.retention.orders import PruneOrder, PruneOrders
from audit.retention.plan import Keeps, PrunePlan, Reason, newest_record, plan_pruning

__all__ = [
    "Hold",
    "Keeps",
    "PruneOrder",
    "PruneOrders",
    "PrunePlan",
    "Reason",
    "active_holds",
    "newest_record",
    "plan_pruning",
]
