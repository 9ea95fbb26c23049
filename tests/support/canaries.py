"""Words and values that a test plants in what it sends, to look for them in what is written."""

import json
import secrets

import numpy as np

from bedside.demo.canaries import Canaries


class Planter:
    """Makes canaries, each used once, and remembers them."""

    def __init__(self) -> None:
        self.canaries = Canaries()

    def text(self) -> str:
        word = f"canary-{secrets.token_hex(8)}"
        self.canaries.add_text(word)
        return word

    def row(self) -> dict:
        values = np.random.default_rng().normal(size=3).astype(np.float32)
        self.canaries.add_values(values)
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": values.tolist()}
        return {"inputs": [tensor]}

    def binary_row(self) -> tuple[bytes, int]:
        values = np.random.default_rng().normal(size=3).astype("<f4")
        self.canaries.add_values(values)
        parameters = {"binary_data_size": 12}
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": parameters}
        head = json.dumps({"inputs": [tensor]}).encode()
        return head + values.tobytes(), len(head)
