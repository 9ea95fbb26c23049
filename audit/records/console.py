"""What people do in the console."""

from enum import StrEnum

from audit.records.base import Outcome, Record
from audit.records.fields import Address, Digest, Identifier, Pseudonym, Reference


class ConsoleAction(StrEnum):
    """What somebody did in the console, or what was done with their account."""

    SIGN_IN = "sign-in"
    SIGN_OUT = "sign-out"
    OPEN = "open"
    SEARCH = "search"
    VIEW_RECORD = "view-record"
    VIEW_SUBJECT = "view-subject"
    ACCOUNT_ADD = "account-add"
    ACCOUNT_CHANGE = "account-change"
    ACCOUNT_UNLOCK = "account-unlock"


class ConsoleProblem(StrEnum):
    """Why the console did not do it."""

    ACCOUNT_LOCKED = "account-locked"
    ADDRESS_LOCKED = "address-locked"
    NOT_PERMITTED = "not-permitted"
    SECRET_WRONG = "secret-wrong"  # noqa: S105 a problem's name, not a secret


class ConsoleRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="console"):
    """Somebody signed in to the console, looked at records, or fetched a report; refused or not.

    `shown` are the records that a page showed, and `subject` is whom it was about, where it was about
    one person. `principal` is an account of the console, never what somebody typed for one. `kind` and
    `digest` are a report's. `address` is where a sign-in came from, as the console saw it; `account` is
    the one that was added or changed.
    """

    action: ConsoleAction
    outcome: Outcome
    problem: ConsoleProblem | None = None
    principal: Identifier | None = None
    roles: tuple[Identifier, ...] = ()
    subject: Pseudonym | None = None
    shown: tuple[Reference, ...] = ()
    kind: Identifier | None = None
    digest: Digest | None = None
    address: Address | None = None
    account: Identifier | None = None
