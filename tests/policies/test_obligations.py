"""Obligations are a closed set, and several of them hold together at their strictest.

Seen to fail: with the union instead of the intersection of outputs, with `max` for `round`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import Obligation, combined
from policies.obligations import DECIMALS_MAX, RETAIN_DAYS_MAX, canonical, resolved


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no_cache", "no_cache"),
        (" review ", "review"),
        ("outputs(risk)", "outputs(risk)"),
        ("outputs( b ,a, b)", "outputs(a,b)"),
        ("round( 02 )", "round(2)"),
        ("retain(3650)", "retain(3650)"),
    ],
)
def test_an_obligation_has_one_form(text, expected):
    assert canonical(text) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no cache",
        "nocache",
        "no_cache()",
        "no_cache(1)",
        "outputs",
        "outputs()",
        "outputs(a,,b)",
        "outputs(a;b)",
        "round",
        "round(-1)",
        "round(1.5)",
        "round(two)",
        f"round({DECIMALS_MAX + 1})",
        f"retain({RETAIN_DAYS_MAX + 1})",
        "retain(١٢)",
        "review(now)",
        "round(1))",
    ],
)
def test_refuses_what_nobody_would_enforce(text):
    with pytest.raises(ValueError, match="obligation"):
        canonical(text)


names = st.sampled_from(["a", "b", "c", "d"])
texts = st.one_of(
    st.builds(lambda n: f"outputs({','.join(sorted(n))})", st.sets(names, min_size=1)),
    st.builds(lambda n: f"round({n})", st.integers(0, DECIMALS_MAX)),
    st.builds(lambda n: f"retain({n})", st.integers(0, RETAIN_DAYS_MAX)),
    st.sampled_from(["no_cache", "notify", "review", "seal_payload", "two_person_review"]),
)


@given(st.lists(texts, unique=True), texts)
def test_one_more_obligation_never_loosens_the_others(given_texts, more):
    before, after = combined(tuple(given_texts)), combined((*given_texts, more))
    assert before.names <= after.names
    if before.outputs is not None:
        assert after.outputs is not None
        assert after.outputs <= before.outputs
    if before.decimals is not None:
        assert after.decimals is not None
        assert after.decimals <= before.decimals
    if before.retain_days is not None:
        assert after.retain_days is not None
        assert after.retain_days >= before.retain_days
    assert Obligation(more.partition("(")[0]) in after


def test_necessary_outputs_are_those_that_the_site_named():
    obliged = ("necessary_outputs", "outputs(b,c)", "round(2)")
    held = resolved(obliged, ("b", "a"))
    assert held == ("outputs(a,b)", "outputs(b,c)", "round(2)")
    assert combined(held).outputs == {"b"}
    assert resolved(obliged, ()) == obliged
    assert Obligation.NECESSARY_OUTPUTS in combined(resolved(obliged, ()))
