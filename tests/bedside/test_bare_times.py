"""A time on the command line without an offset is in UTC, whatever time zone the machine is in.

Seen to fail: with `moment.astimezone()` in `parse_moment`, as the two commands had it.
"""

import asyncio
import json
import time
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from support import make_site
from typer.testing import CliRunner

from audit.records import encode
from bedside.cli.main import app
from bedside.up import environment_of

# Around midnight in UTC; half past four in the afternoon before, in California.
TIMES = [datetime(2026, 2, 28, 23, 30, tzinfo=UTC), datetime(2026, 3, 1, 0, 30, tzinfo=UTC)]


@pytest.fixture(params=["UTC", "America/Los_Angeles", "Asia/Tokyo"])
def zone(request, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def run(tmp_path, request_record, zone, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site = make_site(tmp_path)

    async def append():
        log = await site.open_log("gateway-1")
        for number, moment in enumerate(TIMES):
            record = msgspec.structs.replace(request_record, id=UUID(int=number), time=moment)
            await log.append(encode(record))
        await log.close()

    asyncio.run(append())

    def run(*words):
        done = CliRunner().invoke(app, ["audit", *words], env=environment_of(site.config))
        assert done.exit_code == 0, done
        return done.output

    return run


def reported(run, folder, *words):
    run("report", "access", "--out", str(folder), *words)
    return [
        entry["index"] for entry in json.loads((folder / "access-report.json").read_text())["entries"]
    ]


@pytest.mark.parametrize("midnight", ["2026-03-01", "2026-03-01T00:00:00", "2026-02-28T16:00:00-08:00"])
def test_it_is_midnight_in_utc_where_a_search_and_a_report_begin_and_end(run, tmp_path, midnight):
    assert "#1" in run("search", "--since", midnight)
    assert "1 record\n" in run("search", "--since", midnight)
    assert "#0" in run("search", "--until", midnight)
    assert "1 record\n" in run("search", "--until", midnight)
    assert reported(run, tmp_path / "a", "--since", midnight, "--until", "2026-03-02") == [1]
    assert reported(run, tmp_path / "b", "--until", midnight) == [0]


def test_what_is_no_time_is_refused_with_an_example(tmp_path):
    done = CliRunner().invoke(app, ["audit", "search", "--since", "yesterday"])
    assert done.exit_code == 2
    assert "2026-01-31" in done.output
