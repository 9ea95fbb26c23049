"""Which pages a role may use: asked of the policies in force, and denied unless one permits it."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from policies import ApiAction, Caller, Engine, Role


class Page(StrEnum):
    """A page of the navigation."""

    OVERVIEW = "overview"
    SEARCH = "search"
    EMERGENCIES = "emergencies"
    REPORTS = "reports"
    POLICY = "policy"
    MODELS = "models"
    JOBS = "jobs"


class Entry(Struct, frozen=True):
    """A page of the navigation: where it is, its title, and what its readers must be permitted."""

    page: Page
    path: str
    title: str
    needs: ApiAction


NAVIGATION: Final = (
    Entry(Page.OVERVIEW, "/", "Overview", ApiAction.AUDIT_READ),
    Entry(Page.SEARCH, "/search", "Records", ApiAction.AUDIT_READ),
    Entry(Page.EMERGENCIES, "/emergencies", "Emergencies", ApiAction.AUDIT_REVIEW),
    Entry(Page.REPORTS, "/reports", "Reports", ApiAction.AUDIT_REPORT),
    Entry(Page.POLICY, "/policy", "Policies", ApiAction.POLICY_READ),
    Entry(Page.MODELS, "/models", "Models", ApiAction.RELEASES_READ),
    Entry(Page.JOBS, "/jobs", "Federated jobs", ApiAction.JOBS_READ),
)


class Permissions:
    """Answers by the engine that is in force at that moment."""

    def __init__(self, engine: Callable[[], Engine], site: str) -> None:
        self._engine = engine
        self._site = site

    def may(self, roles: frozenset[Role], action: ApiAction) -> bool:
        """Say whether a policy permits `action` to somebody with these roles."""
        caller = Caller(roles=roles, site=self._site, organisation=self._site)
        return self._engine().authorize(caller, action).allowed

    def pages(self, roles: frozenset[Role]) -> list[Entry]:
        """Return the pages of the navigation that these roles may open."""
        return [entry for entry in NAVIGATION if self.may(roles, entry.needs)]
