"""The search index over a site's logs: made from them, checked against them, never the other way."""

from audit.index.follow import Indexed, catch_up, check, rebuild
from audit.index.keep import Freshness, IndexKeeper
from audit.index.search import Hit, Page, Search, count_by, parse_search, search
from audit.index.store import RecordIndex
from audit.index.tallies import Tally, tally

__all__ = [
    "Freshness",
    "Hit",
    "IndexKeeper",
    "Indexed",
    "Page",
    "RecordIndex",
    "Search",
    "Tally",
    "catch_up",
    "check",
    "count_by",
    "parse_search",
    "rebuild",
    "search",
    "tally",
]
