import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import VerificationError
from audit.tiles import bundle_entries, parse_tile_path, split_bundle, tile_path


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        ((0, 0, 256), "tile/0/000"),
        ((1, 1234067, 256), "tile/1/x001/x234/067"),
        ((None, 1234067, 8), "tile/entries/x001/x234/067.p/8"),
        ((0, 999, 1), "tile/0/999.p/1"),
        ((0, 1000, 256), "tile/0/x001/000"),
    ],
)
def test_paths_are_those_of_the_specification(tile, path):
    assert tile_path(*tile) == path
    assert parse_tile_path(path) == tile


@given(st.none() | st.integers(0, 63), st.integers(0, 10**12), st.integers(1, 256))
def test_paths_are_read_back(level, index, width):
    assert parse_tile_path(tile_path(level, index, width)) == (level, index, width)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/x000/001",
        "tile/0/000.p/256",
        "tile/0/000.p/0",
        "tile/64/000",
        "tile/0/../checkpoint",
        "tile/0/0",
        "tile/entries/000.p/1/..",
        "tile/0/000\n",
    ],
)
def test_no_other_spelling_is_a_path(path):
    assert parse_tile_path(path) is None


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_bundles_are_split_again(leaves):
    assert list(split_bundle(bundle_entries(leaves))) == leaves


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.data())
def test_a_bundle_that_was_cut_off_is_refused(leaves, data):
    bundle = bundle_entries(leaves)
    lengths = {0}
    for leaf in leaves:
        lengths.add(max(lengths) + 2 + len(leaf))
    cut = data.draw(st.integers(1, len(bundle) - 1).filter(lambda n: n not in lengths))
    with pytest.raises(VerificationError):
        list(split_bundle(bundle[:cut]))
