"""What federated jobs may reveal: the least cohort of a result, and how many results there are.

Both are the site's setting and its policies' numbers, whichever is stricter. Answers are counted from
the log rather than from the database, which whoever runs the coordinator can empty. This is a count and
no privacy budget: it bounds how often sums over slowly changing cohorts can be compared, and says
nothing of how much one of them reveals.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from audit.records import JobRecord, JobState, decode
from policies import Numbers

Release = tuple[str, str]


class Budget:
    """Holds federated jobs to the numbers of the policies in force and to the site's own."""

    def __init__(self, numbers: Callable[[], Numbers | None], cohort_minimum: int) -> None:
        """Ask `numbers` each time: policies change while jobs wait."""
        self._numbers = numbers
        self._site_minimum = cohort_minimum
        self._answered: dict[Release, list[datetime]] = defaultdict(list)

    @property
    def cohort_minimum(self) -> int:
        """The least number of devices that a result is made from."""
        numbers = self._numbers()
        return max(self._site_minimum, (numbers and numbers.cohort_minimum) or 0)

    def recount(self, leaves: Iterable[bytes]) -> None:
        """Count the answers that a log of records holds; blocking."""
        self._answered.clear()
        for leaf in leaves:
            record = decode(leaf)
            if isinstance(record, JobRecord):
                self.note(record)

    def note(self, record: JobRecord) -> None:
        """Count what was recorded of a job, if it is an answer."""
        if record.state is JobState.DONE:
            self._answered[record.model, record.model_version].append(record.time)

    def objection(self, release: Release, waiting: int, now: datetime) -> str | None:
        """Return why no further job about `release` is answered, of which `waiting` are not yet."""
        numbers = self._numbers()
        if numbers is None or numbers.answers_per_release is None:
            return None
        days = numbers.answers_period_days or 0
        since = now - timedelta(days=days)
        answered = sum(time > since for time in self._answered[release])
        if answered + waiting < numbers.answers_per_release:
            return None
        return f"policy allows {numbers.answers_per_release} answers about a release in {days} days"
