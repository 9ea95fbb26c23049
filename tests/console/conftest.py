import pytest
from support.officers import ConsoleProcess, fill, hospital


@pytest.fixture(scope="session")
def console(tmp_path_factory):
    """One real console over a month of records, for all tests that only look."""
    folder = tmp_path_factory.mktemp("console")
    site = hospital(folder)
    fill(site)
    with ConsoleProcess(site, folder) as running:
        wait_until_indexed(running)
        yield running


@pytest.fixture(scope="session")
def officer(console):
    return console.officer()


def wait_until_indexed(console):
    """The index is made in the background; an officer's page says when it is complete."""
    import time

    visitor = console.officer()
    deadline = time.monotonic() + 60
    while "complete up to" not in visitor.read("/"):
        assert time.monotonic() < deadline, console.log.read_text()
        time.sleep(0.05)
