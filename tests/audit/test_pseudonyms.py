"""One person's pseudonym can be made uncomputable, and nobody else's changes.

Seen to fail: with the seed of the path kept in `without`, the erased pseudonym comes out again.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import Pseudonymizer, PseudonymKeyError
from audit.pseudonyms import DEPTH, PseudonymKey, _path

ROOT = bytes(range(32))
KEY = PseudonymKey.from_bytes(ROOT)
SUBJECTS = st.text(min_size=1, max_size=20)


@given(st.lists(SUBJECTS, min_size=1, max_size=4, unique=True), SUBJECTS)
def test_erasing_some_changes_their_pseudonyms_and_no_others(erased, other):
    key = KEY
    for subject in erased:
        key = key.without(subject)
    stored = PseudonymKey.from_bytes(key.to_bytes())
    for subject in erased:
        assert stored.pseudonym(subject) != KEY.pseudonym(subject)
        assert stored.pseudonym(subject) == key.pseudonym(subject)
    if other not in erased:
        assert stored.pseudonym(other) == KEY.pseudonym(other)


def test_a_punctured_key_holds_no_seed_above_or_at_the_leaf():
    punctured = KEY.without("mrn-1")
    path = _path(b"mrn-1", 0)
    assert not {path[:n] for n in range(DEPTH + 1)} & punctured._seeds.keys()
    assert punctured._leaf(path) is None
    assert ROOT not in punctured.to_bytes()


def test_who_comes_back_and_is_erased_again_never_gets_an_old_pseudonym():
    key, seen = KEY, set()
    for _ in range(4):
        seen.add(key.pseudonym("mrn-1"))
        key = key.without("mrn-1")
    assert len(seen | {key.pseudonym("mrn-1")}) == 5


def test_a_running_process_takes_up_a_replaced_key(monkeypatch):
    monkeypatch.setattr("audit.pseudonyms.RELOAD_S", -1)
    replaced = iter([None, KEY.without("mrn-1").to_bytes(), None])
    pseudonymizer = Pseudonymizer(ROOT, reload=lambda: next(replaced))
    first, second, third = (pseudonymizer.pseudonym("mrn-1") for _ in range(3))
    assert first == KEY.pseudonym("mrn-1")
    assert second == third != first


@pytest.mark.parametrize("data", [b"", bytes(31), KEY.without("x").to_bytes()[:-1], b"x" * 100])
def test_what_is_no_key_is_refused(data):
    with pytest.raises(PseudonymKeyError):
        PseudonymKey.from_bytes(data)
