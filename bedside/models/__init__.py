"""Models on their way to a release: export, equivalence check, description."""

from bedside.models.export import Equivalence, check_equivalence, describe, export

__all__ = ["Equivalence", "check_equivalence", "describe", "export"]
