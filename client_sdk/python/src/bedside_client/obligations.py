"""What policy obliges a device to that runs a model itself.

An obligation that this version does not know refuses the run: none is ever passed over.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from bedside_client.errors import ModelFailed, Refused

Array = npt.NDArray[Any]

_CALL: Final = re.compile(r"([a-z][a-z0-9_]*)(?:\(([^()]*)\))?")

# The receipt is recorded, nothing is cached here, and the payload moves nowhere; those whom the site
# notifies hear of the receipt.
_MET: Final = frozenset({"may_cache", "no_cache", "notify", "retain", "review", "seal_payload"})


class LocalObligations(Struct, frozen=True, kw_only=True):
    """`outputs` are the only ones that an app is given, `decimals` how exactly; None for all."""

    outputs: frozenset[str] | None = None
    decimals: int | None = None

    @classmethod
    def of(
        cls, obligations: Iterable[str], policies: tuple[str, ...], citations: tuple[str, ...]
    ) -> Self:
        """Read the obligations of a placement.

        Raises:
            Refused: naming the first that cannot be met on a device.
        """
        outputs: frozenset[str] | None = None
        decimals: int | None = None
        for text in obligations:
            match = _CALL.fullmatch(text)
            name, argument = match.groups() if match else ("", None)
            if name == "outputs" and argument:
                named = frozenset(part.strip() for part in argument.split(","))
                outputs = named if outputs is None else outputs & named
            elif name == "round" and argument and argument.isdecimal():
                decimals = min(int(argument), decimals if decimals is not None else int(argument))
            elif name not in _MET:
                detail = "policy obliges to what cannot be done on a device"
                raise Refused(f"{detail}: {name}" if name else detail, policies, citations)
        return cls(outputs=outputs, decimals=decimals)

    def apply(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return what the app may be given of `outputs`.

        Raises:
            ModelFailed: if that is nothing.
        """
        given = {
            name: value
            for name, value in outputs.items()
            if self.outputs is None or name in self.outputs
        }
        if not given:
            raise ModelFailed("policy lets none of the model's outputs be given out")
        if self.decimals is None:
            return given
        return {
            name: np.round(value, self.decimals) if value.dtype.kind == "f" else value
            for name, value in given.items()
        }
