"""Numbers travel in the bundle; the strictest of several hold; one that nothing enforces is refused."""

import datetime as dt
import shutil

import pytest

from policies import BundleInvalid, Numbers, build_bundle, draft_document, read_draft
from policies.numbers import strictest
from policies.pack import PACKS
from policies.proofs import changed_data

TABLE = """[numbers]
{}
source = "a contract"
checked = 2026-11-24
"""


@pytest.fixture
def bundle(tmp_path):
    """Build a bundle with a site's own pack that has these numbers."""
    root = tmp_path / "packs"
    shutil.copytree(PACKS, root)
    (root / "own").mkdir()
    (root / "own/pack.toml").write_text('name = "own"\nrequires = ["base"]\n')

    def build(*lines, packs=("base", "own")):
        (root / "own/data.toml").write_text(TABLE.format("\n".join(lines)) if lines else "")
        return build_bundle(packs, name="n", version=1, models={}, root=root)

    return build


def test_they_are_part_of_what_is_signed(bundle):
    made = bundle("cohort_minimum = 20")
    assert made.numbers == Numbers(
        cohort_minimum=20, source="a contract", checked=dt.date(2026, 11, 24)
    )
    assert read_draft(draft_document(made)) == made
    assert made.digest() != bundle("cohort_minimum = 19").digest()
    assert b"numbers" not in bundle().payload()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("cohort_minimum = 1",), "own/data.toml:2"),
        (("epsilon_total = 1",), "own/data.toml.*epsilon_total"),
        (("answers_per_release = 3",), "data.toml: answers_per_release and answers_period_days"),
        (("answers_per_release = 0", "answers_period_days = 1"), "answers_per_release"),
    ],
)
def test_a_number_that_could_not_be_enforced_is_refused(bundle, lines, message):
    with pytest.raises(BundleInvalid, match=message):
        bundle(*lines)


def test_of_several_packs_the_strictest_hold():
    def numbers(source, **limits):
        return Numbers(source=source, checked=dt.date(2026, 1, len(source)), **limits)

    assert strictest(()) is None
    both = strictest(
        [
            numbers("a", cohort_minimum=11, answers_per_release=10, answers_period_days=30),
            numbers("bb", cohort_minimum=20),
            numbers("ccc", cohort_minimum=5, answers_per_release=3, answers_period_days=7),
        ]
    )
    assert both == Numbers(
        cohort_minimum=20,
        answers_per_release=3,
        answers_period_days=30,
        source="a; bb; ccc",
        checked=dt.date(2026, 1, 1),
    )


def test_a_change_of_them_is_shown(bundle):
    before, after = bundle("cohort_minimum = 20"), bundle("cohort_minimum = 5")
    assert changed_data(before, after) == ("cohort_minimum: 20 -> 5",)
    assert changed_data(bundle(), after) == ("cohort_minimum: none -> 5",)
