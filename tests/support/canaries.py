"""Words and values that a test plants in what it sends, to look for them in what is written."""

import json
import secrets
import threading

import numpy as np

from bedside.demo.canaries import Canaries

TAG = "canary-"
ROWS = 400


class Planter:
    """Makes canaries, and remembers them.

    Each word is used once, and begins as all others do: that beginning is what is looked for. Rows of
    values are used again once there are many, so that looking for them stays quick.
    """

    def __init__(self) -> None:
        self.canaries = Canaries()
        self._random = np.random.default_rng()
        self._rows: list[np.ndarray] = []
        self._lock = threading.Lock()
        self.canaries.add_text(TAG)

    def text(self) -> str:
        return f"{TAG}{secrets.token_hex(8)}"

    def values(self) -> np.ndarray:
        """Return three values of four digits before the point: few decimals give them away."""
        with self._lock:
            if len(self._rows) == ROWS:
                return self._rows[self._random.integers(ROWS)]
            values = self._random.uniform(1000, 9999, 3).astype("<f4")
            self._rows.append(values)
            self.canaries.add_values(values)
            return values

    def row(self) -> dict:
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": self.values().tolist()}
        return {"inputs": [tensor]}

    def binary_row(self) -> tuple[bytes, int]:
        parameters = {"binary_data_size": 12}
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": parameters}
        head = json.dumps({"inputs": [tensor]}).encode()
        return head + self.values().tobytes(), len(head)
