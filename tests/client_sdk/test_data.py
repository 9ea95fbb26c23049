import numpy as np
import pytest

from bedside_client import DeviceState, SqliteData, StateError
from bedside_client.keys import DeviceIdentity


def test_rows_come_back_as_they_were_written(tmp_path):
    data = SqliteData(tmp_path / "data.sqlite")
    x = np.arange(4, dtype=np.float32)
    data.write([("mrn-1", x, 1), ("mrn-2", x + 1, 0)])
    assert (data.row("mrn-2", "x") == x + 1).all()
    assert data.row("mrn-3", "x") is None
    assert [label for _, label in data.rows()] == [1, 0]


def test_a_device_that_was_never_enrolled_says_so(tmp_path):
    with pytest.raises(StateError, match="enrol it first"):
        DeviceState.open(tmp_path)


def test_the_private_key_is_made_once_and_readable_by_its_owner_only(tmp_path):
    path = tmp_path / "identity.key"
    key = DeviceIdentity.open(path).public_key
    assert DeviceIdentity.open(path).public_key == key
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"damaged")
    with pytest.raises(StateError):
        DeviceIdentity.open(path)
