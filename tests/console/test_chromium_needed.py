"""Without a browser the pages are not tested: CI says so by failing, others by a reason."""

import pytest
from support.browser import chromium, chromium_path

# Either would end a test that only expects the other, and a skip would look as if all were well.
ENDS = (pytest.fail.Exception, pytest.skip.Exception)


@pytest.fixture(autouse=True)
def no_browser(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_ci_fails_without_a_browser_and_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CI", "true")
    for start in (chromium_path, lambda: chromium().__enter__()):
        with pytest.raises(ENDS, match="apt-get install chromium") as ended:
            start()
        assert ended.type is pytest.fail.Exception


@pytest.mark.parametrize("value", [None, "", "false"])
def test_others_skip_with_the_reason(monkeypatch, value):
    monkeypatch.delenv("CI", raising=False)
    if value is not None:
        monkeypatch.setenv("CI", value)
    with pytest.raises(ENDS, match="apt-get install chromium") as ended:
        chromium_path()
    assert ended.type is pytest.skip.Exception
