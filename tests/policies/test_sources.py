import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cache import LruCache
from policies.pack import PACKS
from policies.source import statements

POLICIES = [
    '@id("a")\n@title("stop; here }")\npermit (principal, action, resource);',
    '// a comment; with { and " in it\nforbid (principal, action, resource) when { true };',
    'permit (\n  principal,\n  action,\n  resource\n)\nwhen { {a: "x;\\"y}"}.a == "z" };',
    "permit (principal, action, resource) unless { [1, 2].contains(3) };",
]
GAPS = ["\n", "\n\n", " ", '\n// between; { " permit\n']


@given(st.lists(st.tuples(st.sampled_from(POLICIES), st.sampled_from(GAPS)), max_size=6))
def test_statements_are_what_cedar_takes_them_for(parts):
    text = "".join(policy + gap for policy, gap in parts)
    found = list(statements(text))
    assert len(found) == len(cedarpy.PolicySet.from_str(text)) == len(parts)
    lines = text.splitlines()
    for statement, (policy, _) in zip(found, parts, strict=True):
        assert len(cedarpy.PolicySet.from_str(statement.text)) == 1
        effect = "forbid" if "forbid (" in policy else "permit"
        assert effect in lines[statement.line - 1]


@given(st.text(max_size=200))
def test_any_text_is_taken_apart_and_loses_nothing_but_space_and_comments(text):
    joined = "".join(statement.text for statement in statements(text))
    assert sum(1 for _ in statements(joined)) <= len(text) + 1
    assert len(joined) <= len(text)


@pytest.mark.parametrize("file", sorted(PACKS.glob("*/*.cedar*")), ids=lambda file: file.name)
def test_every_file_that_ships_is_taken_apart_as_cedar_would(file):
    found = list(statements(file.read_text()))
    assert all(statement.text.endswith(";") for statement in found)
    if file.suffix == ".cedar":
        assert len(found) == len(cedarpy.PolicySet.from_str(file.read_text()))


def test_the_least_recently_used_goes_first():
    cache = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    cache.drop("a")
    assert len(cache) == 1
    with pytest.raises(ValueError, match="at least 1"):
        LruCache(0)
