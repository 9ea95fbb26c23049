"""A witness: cosigns what logs sign, once it is shown to extend all that it cosigned before."""

from audit.witness.memory import Contradiction, WitnessMemory
from audit.witness.serve import serve_witness
from audit.witness.witness import Added, Witness

__all__ = ["Added", "Contradiction", "Witness", "WitnessMemory", "serve_witness"]
