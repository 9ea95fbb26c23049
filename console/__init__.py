"""The console for officers: what the logs say, shown by a server that records who looked at what."""

from console.accounts import Account, Accounts
from console.errors import AccountError, ConsoleError, StoreError
from console.lockout import Lockout
from console.run import ConsoleInputs, database_of
from console.settings import ConsoleSettings
from console.store import Store

__all__ = [
    "Account",
    "AccountError",
    "Accounts",
    "ConsoleError",
    "ConsoleInputs",
    "ConsoleSettings",
    "Lockout",
    "Store",
    "StoreError",
    "database_of",
]
