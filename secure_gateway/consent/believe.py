"""Whether a request has its person's consent: what the registry knows, and whom the site believes."""

import logging

from policies import Facts
from secure_gateway.consent.grants import Standing, Use
from secure_gateway.consent.store import ConsentRegistry, ConsentUnavailable

logger = logging.getLogger(__name__)


class Consents:
    """Answers for each request anew.

    A grant in force is consent, and a withdrawal ends it, whatever anybody says. Where the registry
    knows nothing, what a verified token asserts counts, and what a caller claims only where the site
    believes claims. A registry that does not answer knows of no consent: care does not depend on it,
    and all else can wait.
    """

    def __init__(self, registry: ConsentRegistry | None, *, claims: bool) -> None:
        self._registry = registry
        self._claims = claims

    def asks(self, pseudonym: str | None) -> bool:
        """Whether a registry may know something of the person of this pseudonym."""
        return self._registry is not None and pseudonym is not None

    def believed(self, *, claimed: bool, asserted: bool | None) -> bool:
        """Say whether what is said of a consent counts, where no registry knows anything."""
        return self._claims and claimed if asserted is None else asserted

    async def holds(
        self, facts: Facts, pseudonym: str | None, *, claimed: bool, asserted: bool | None
    ) -> bool:
        """Say whether the person of this pseudonym consents to what `facts` say is to be done."""
        if asserted is False:
            return False
        said = self.believed(claimed=claimed, asserted=asserted)
        if self._registry is None or pseudonym is None:
            return said
        use = Use(facts.purpose, facts.model, facts.data_class)
        try:
            known = await self._registry.standing(pseudonym, use)
        except ConsentUnavailable as error:
            logger.warning("%s; requests are taken to have no consent", error)
            return False
        return said if known is Standing.UNKNOWN else known is Standing.GRANTED
