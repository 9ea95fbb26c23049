"""What a permit obliges to: held before a request runs, and applied to what it answers.

An obligation that cannot be met refuses the request; none is ever passed over. `review` and `retain`
are met by the record that every request leaves, `no_cache` and `may_cache` by the response cache,
`notify` by what follows the log, and `two_person_review` by withholding the result of queued work.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from audit.records import Problem
from inference_node import CLASSIFICATION, InferRequest, InferResponse, RequestedOutput, Tensor
from policies import Obligation, Obligations, combined
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Exchange


@dataclass(frozen=True)
class Fulfiller:
    """Holds requests to their obligations; `notifies` says whether the site has told whom to notify."""

    notifies: bool = False

    def prepare(self, exchange: Exchange) -> None:
        """Refuse what cannot be met, and ask for no output that may not leave.

        Raises:
            Refusal: obligation-unmet, naming the obligation.
        """
        obligations = _obligations_of(exchange)
        request = exchange.request
        if Obligation.TWO_PERSON_REVIEW in obligations and not exchange.call.kept:
            raise _unmet(
                "two_person_review",
                "a second person must review it before it is answered, so submit it as work "
                "(POST /v1/models/<model>/work)",
            )
        self.prepare_placement(exchange)
        if request is None:
            return
        if Obligation.SEAL_PAYLOAD in obligations and request.carries_tensors:
            # A request that names a device's inputs brings no payload that anybody could read.
            raise _unmet("seal_payload", "its tensors came unsealed, for the gateway to read")
        if obligations.decimals is not None and any(
            CLASSIFICATION in output.parameters for output in request.outputs
        ):
            # Its values leave as text, each with a label, and could not be rounded any more.
            raise _unmet("round", "a classification was asked for; ask for the values")
        if obligations.outputs is not None:
            _narrow(request, obligations.outputs, on_device=not request.carries_tensors)

    def prepare_placement(self, exchange: Exchange) -> None:
        """Refuse what cannot be met wherever it runs: nobody can be told, or nothing is named.

        Raises:
            Refusal: obligation-unmet.
        """
        obligations = _obligations_of(exchange)
        if Obligation.NECESSARY_OUTPUTS in obligations:
            raise _unmet(
                "necessary_outputs", "the site named no outputs of this model that suffice for it"
            )
        if Obligation.NOTIFY in obligations and not self.notifies:
            raise _unmet("notify", "the site has not configured whom to notify")

    def apply(self, exchange: Exchange, response: InferResponse) -> None:
        """Take out of `response` what may not leave, and round what may not leave exactly.

        Raises:
            Refusal: obligation-unmet, if nothing is left.
        """
        obligations = _obligations_of(exchange)
        exchange.withheld = Obligation.TWO_PERSON_REVIEW in obligations
        allowed = obligations.outputs
        if allowed is not None:
            response.outputs = [tensor for tensor in response.outputs if tensor.name in allowed]
            if not response.outputs:
                raise _nothing_left()
        if obligations.decimals is not None:
            for tensor in response.outputs:
                _round(tensor, obligations.decimals)


def _obligations_of(exchange: Exchange) -> Obligations:
    decision = exchange.decision
    if decision is None:
        message = "obligations follow a decision"
        raise AssertionError(message)
    return combined(decision.obligations)


def _narrow(request: InferRequest, allowed: frozenset[str], *, on_device: bool) -> None:
    """Ask for what may leave only: what is never computed or sent cannot leave by mistake."""
    if request.outputs:
        request.outputs = [output for output in request.outputs if output.name in allowed]
        if not request.outputs:
            raise _nothing_left()
    elif on_device:
        request.outputs = [RequestedOutput(name=name) for name in sorted(allowed)]


def _round(tensor: Tensor, decimals: int) -> None:
    array: Any = tensor.array
    if array is None or array.dtype.kind not in "fV":
        return
    # BF16 has no rounding of its own; float64 holds every value of the shorter types exactly.
    rounded = np.round(array.astype(np.float64), decimals)
    tensor.array = rounded.astype(array.dtype)


def _nothing_left() -> Refusal:
    return _unmet("outputs", "policy lets none of the outputs that were asked for leave")


def _unmet(obligation: str, reason: str) -> Refusal:
    return Refusal(
        Problem.OBLIGATION_UNMET, f"The obligation {obligation} cannot be met here: {reason}."
    )
