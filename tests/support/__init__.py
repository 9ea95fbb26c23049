"""What tests share: small models, sites of their own, real processes, a plain HTTP caller."""

from support.http import Reply, call
from support.models import linear_model, publish_linear
from support.sites import GatewayProcess, make_site, records_of

__all__ = [
    "GatewayProcess",
    "Reply",
    "call",
    "linear_model",
    "make_site",
    "publish_linear",
    "records_of",
]
