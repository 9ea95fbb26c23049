"""Points at the installed ClientApp."""

from bedside_client.federated import app

__all__ = ["app"]
