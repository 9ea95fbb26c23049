"""The how-to for publishing a policy does what it says, command by command."""

from support.page import Page, run_lines


def test_its_commands_work_as_they_are_written(tmp_path):
    page = Page("how-to/publish-a-policy.md")
    assert len(page.commands) >= 20
    # One of them is refused, which the page shows.
    page.shown_by(run_lines(page.commands, tmp_path, stop_at_failure=False))
