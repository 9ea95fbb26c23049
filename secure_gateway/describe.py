"""Stage 2, about what: turn claims into facts, in closed sets, strictest where nothing is said."""

import re
from collections.abc import Mapping

from msgspec import structs

from audit.pseudonyms import Pseudonymizer
from audit.records import Problem
from inference_node import InputInvalid
from policies import DataClass, Facts, Principal, Purpose, Role
from secure_gateway.consent.believe import Consents
from secure_gateway.directory import DeviceDirectory
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Decode, Exchange
from secure_gateway.models import ModelIndex

SUBJECT_MAX_CHARACTERS = 256

_JURISDICTION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_DATA_CLASSES: Mapping[str, DataClass] = {member.value: member for member in DataClass}
_PURPOSES: Mapping[str, Purpose] = {member.value: member for member in Purpose}
_FLAGS: Mapping[str, bool] = {"true": True, "false": False}


class Describer:
    """Fills an exchange with its model, subject and facts.

    What a verified token asserts outranks what the caller claims; a claim outside its closed set is
    refused, never mapped to something looser.
    """

    def __init__(
        self,
        *,
        jurisdiction: str,
        models: ModelIndex,
        directory: DeviceDirectory,
        pseudonymizer: Pseudonymizer,
        consents: Consents,
    ) -> None:
        self._jurisdiction = jurisdiction
        self._models = models
        self._directory = directory
        self._pseudonymizer = pseudonymizer
        self._consents = consents

    async def describe(self, exchange: Exchange, decode: Decode | None) -> None:
        """Set `model`, `request`, `subject`, `pseudonym`, `holder` and `facts` of `exchange`.

        Raises:
            Refusal: model-unknown, body-malformed or facts-invalid.
        """
        call = exchange.call
        exchange.model = self._models.resolve(call.model, call.version)
        if decode is not None:
            try:
                exchange.request = decode()
            except InputInvalid as error:
                raise Refusal(Problem.BODY_MALFORMED, str(error)) from error
        self._identify_subject(exchange)
        facts = self._facts(exchange, exchange.model.name)
        claimed = _flag(call.claims.consent, "Bedside-Consent")
        asserted = None if exchange.principal is None else exchange.principal.asserted.consent
        # Without a registry, or without a person, nothing has to be waited for.
        if self._consents.asks(exchange.pseudonym):
            consent = await self._consents.holds(
                facts, exchange.pseudonym, claimed=claimed, asserted=asserted
            )
        else:
            consent = self._consents.believed(claimed=claimed, asserted=asserted)
        if consent:
            facts = structs.replace(facts, consent=True)
        exchange.facts = facts

    def _identify_subject(self, exchange: Exchange) -> None:
        subject = subject_of(exchange.principal, exchange.call.claims.subject)
        if subject is None:
            return
        exchange.subject = subject
        exchange.pseudonym = self._pseudonymizer.pseudonym(subject)
        exchange.holder = self._directory.holder_of(exchange.pseudonym)

    def _facts(self, exchange: Exchange, model: str) -> Facts:
        principal = exchange.principal
        if principal is None:
            message = "facts are described after authentication"
            raise AssertionError(message)
        claims, asserted = exchange.call.claims, principal.asserted
        if exchange.call.on_device and Role.DEVICE in principal.roles and exchange.holder is None:
            # A device knows what it holds; saying so only ever keeps data where it is.
            exchange.holder = principal.id
        request = exchange.request
        return Facts(
            roles=principal.roles,
            kind=principal.kind,
            site=principal.said.site or "",
            organisation=principal.said.organisation or "",
            model=model,
            jurisdiction=asserted.jurisdiction or self._jurisdiction_of(claims.jurisdiction),
            data_class=asserted.data_class or _data_class_of(claims.data_class),
            purpose=asserted.purpose or _purpose_of(claims.purpose),
            emergency=_flag(claims.emergency, "Bedside-Emergency"),
            on_device=exchange.holder is not None,
            own_device=exchange.holder == principal.id,
            carries_payload=request is None or request.carries_tensors,
        )

    def _jurisdiction_of(self, claim: str | None) -> str:
        if claim is None:
            return self._jurisdiction
        if not _JURISDICTION.fullmatch(claim):
            raise Refusal(
                Problem.FACTS_INVALID,
                "Bedside-Jurisdiction must be an ISO 3166 code such as DE or US-CA.",
            )
        return claim


def subject_of(principal: Principal | None, claimed: str | None) -> str | None:
    """Return whom a request is about: the person whom its token names outranks whom it claims.

    A claim is ASCII: what a header's further bytes mean is for each client to say, so that one person
    would have two pseudonyms.

    Raises:
        Refusal: facts-invalid, if it is no name.
    """
    if claimed is not None and not claimed.isascii():
        raise Refusal(
            Problem.FACTS_INVALID,
            "Bedside-Subject must be ASCII: an identifier such as a record number, not a name.",
        )
    asserted = None if principal is None else principal.asserted.subject
    subject = claimed if asserted is None else asserted
    if subject is not None and not 0 < len(subject) <= SUBJECT_MAX_CHARACTERS:
        raise Refusal(
            Problem.FACTS_INVALID,
            f"Bedside-Subject must be 1 to {SUBJECT_MAX_CHARACTERS} characters long.",
        )
    return subject


def _data_class_of(claim: str | None) -> DataClass:
    if claim is None:
        return DataClass.PHI
    value = _DATA_CLASSES.get(claim)
    if value is None:
        raise Refusal(
            Problem.FACTS_INVALID, f"Bedside-Data-Class must be one of {', '.join(_DATA_CLASSES)}."
        )
    return value


def _purpose_of(claim: str | None) -> Purpose:
    if claim is None:
        return Purpose.TREAT
    value = _PURPOSES.get(claim)
    if value is None:
        raise Refusal(Problem.FACTS_INVALID, f"Bedside-Purpose must be one of {', '.join(_PURPOSES)}.")
    return value


def _flag(claim: str | None, name: str) -> bool:
    if claim is None:
        return False
    value = _FLAGS.get(claim)
    if value is None:
        raise Refusal(Problem.FACTS_INVALID, f"{name} must be true or false.")
    return value
