"""What each caller may ask for: so many requests a second, so many a day.

Counted in each replica by itself. A day's count is taken up again from the log after a restart, since
every request that was let in has a record there.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from policies import Role
from secure_gateway.admission.settings import CallerAllowance, LimitSettings

CALLERS_MAX: Final = 65536


class _Account:
    __slots__ = ("count", "day", "tokens", "updated")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.updated = now
        self.day: date | None = None
        self.count = 0


class CallerLimits:
    """Keeps an account for each caller that has a limit."""

    def __init__(
        self,
        settings: LimitSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._today = today
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._allowances: dict[frozenset[Role], CallerAllowance | None] = {}

    @property
    def counts_days(self) -> bool:
        """Whether any caller has a limit for the day."""
        allowances = (self._settings, *self._settings.roles.values())
        return any(allowance.requests_per_day is not None for allowance in allowances)

    def restore(self, counted: Iterable[str]) -> None:
        """Take up what was counted today before a restart: the principal of each request."""
        for principal in counted:
            account = self._account(principal, 0.0)
            account.day = self._today().date()
            account.count += 1

    def take(self, principal: str, roles: frozenset[Role]) -> int | None:
        """Count one request of `principal`; return None, or in how many seconds to try again."""
        allowance = self._allowance(roles)
        if allowance is None:
            return None
        account = self._account(principal, _burst(allowance))
        wait_s = self._wait_s(account, allowance)
        if wait_s is None:
            if allowance.requests_per_s is not None:
                account.tokens -= 1
            account.count += 1
        return wait_s

    def wait_s(self, principal: str, roles: frozenset[Role]) -> int | None:
        """Say in how many seconds `principal` may ask again, None if it may now; count nothing."""
        allowance = self._allowance(roles)
        if allowance is None:
            return None
        return self._wait_s(self._account(principal, _burst(allowance)), allowance)

    def _wait_s(self, account: _Account, allowance: CallerAllowance) -> int | None:
        if allowance.requests_per_day is not None:
            now = self._today()
            if account.day != now.date():
                account.day, account.count = now.date(), 0
            if account.count >= allowance.requests_per_day:
                midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
                return max(1, math.ceil((midnight - now).total_seconds()))
        if allowance.requests_per_s is not None:
            now_s = self._clock()
            refilled = account.tokens + (now_s - account.updated) * allowance.requests_per_s
            account.tokens, account.updated = min(_burst(allowance), refilled), now_s
            if account.tokens < 1:
                return max(1, math.ceil((1 - account.tokens) / allowance.requests_per_s))
        return None

    def _account(self, principal: str, tokens: float) -> _Account:
        account = self._accounts.get(principal)
        if account is None:
            account = self._accounts[principal] = _Account(tokens, self._clock())
            if len(self._accounts) > CALLERS_MAX:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(principal)
        return account

    def _allowance(self, roles: frozenset[Role]) -> CallerAllowance | None:
        try:
            return self._allowances[roles]
        except KeyError:
            allowance = self._allowances[roles] = self._combined(roles)
            return allowance

    def _combined(self, roles: frozenset[Role]) -> CallerAllowance | None:
        own = [self._settings.roles[role] for role in sorted(roles) if role in self._settings.roles]
        found = own or [self._settings]
        rates = [allowance.requests_per_s for allowance in found]
        days = [allowance.requests_per_day for allowance in found]
        rate = None if None in rates else max(rate for rate in rates if rate is not None)
        day = None if None in days else max(day for day in days if day is not None)
        if rate is None and day is None:
            return None
        burst = math.ceil(max(_burst(allowance) for allowance in found)) if rate is not None else None
        return CallerAllowance(requests_per_s=rate, requests_per_day=day, burst=burst)


def _burst(allowance: CallerAllowance) -> float:
    if allowance.burst is not None:
        return allowance.burst
    return max(1.0, allowance.requests_per_s or 1.0)
