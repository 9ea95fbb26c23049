"""What a model on a device holds on to."""

import sys

import numpy as np
from support.models import linear_model

from bedside_client.runtime import LocalModel


def test_a_loaded_model_does_not_keep_its_file(tmp_path):
    """Seen to fail with the runtime's own session, which keeps the bytes for as long as it lives."""
    linear_model(tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    held = sys.getrefcount(data)
    model = LocalModel(data)
    assert sys.getrefcount(data) == held
    assert model.run({model.inputs[0]: np.ones((1, 3), np.float32)})
