"""What is used in full goes into large pages; what is not stays as it is, and so does what it holds.

Seen to fail: with `_full_ranges` yielding every range, the sparse memory grows to its whole size; and
with `use_large_pages` left out of `load_version`.
"""

import mmap
import subprocess
import sys
from pathlib import Path

import pytest
from support import linear_model

from inference_node import large_pages
from inference_node.large_pages import use_large_pages

SIZE_BYTES = 64 << 20
LARGE_BYTES = 2 << 20
LOADING = """
import asyncio, re, sys
from pathlib import Path
from inference_node import Node, NodeSettings
node = Node(NodeSettings(repository=Path(sys.argv[1])))
asyncio.run(node.start())
assert [model.name for model in node.loaded()] == ["big"]
print(re.search(r"AnonHugePages: +([0-9]+) kB", Path("/proc/self/smaps_rollup").read_text())[1])
"""


@pytest.fixture
def memory():
    with mmap.mmap(-1, SIZE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapped:
        yield mapped


def held_bytes(field: str) -> int:
    """Return what all mappings of the process have of a field of smaps."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def test_memory_in_use_goes_into_large_pages_and_keeps_what_it_holds(memory):
    memory[:] = bytes(range(256)) * (SIZE_BYTES // 256)
    before = held_bytes("AnonHugePages:")
    if use_large_pages() == 0:
        pytest.skip("this system gives no large pages on request")
    assert held_bytes("AnonHugePages:") - before >= SIZE_BYTES - 2 * LARGE_BYTES
    assert memory[:] == bytes(range(256)) * (SIZE_BYTES // 256)


def test_memory_that_is_not_in_use_stays_so(memory):
    for offset in range(0, SIZE_BYTES, LARGE_BYTES // 2):
        memory[offset] = 1
    before = held_bytes("Rss:")
    use_large_pages()
    assert held_bytes("Rss:") - before < SIZE_BYTES // 4


def test_the_weights_of_a_loaded_model_are_in_large_pages(tmp_path):
    if use_large_pages() == 0:
        pytest.skip("this system gives no large pages on request")
    linear_model(tmp_path / "big" / "1" / "model.onnx", features=4096, classes=4096)
    # In a process of its own, which has held no large arrays before.
    held = subprocess.run(
        [sys.executable, "-c", LOADING, str(tmp_path)], capture_output=True, check=True, text=True
    )
    assert int(held.stdout) * 1024 >= SIZE_BYTES - 2 * LARGE_BYTES


@pytest.mark.parametrize("setting", ["always madvise [never]", None])
def test_a_system_that_wants_none_is_left_alone(memory, monkeypatch, tmp_path, setting):
    memory[:] = bytes([1]) * SIZE_BYTES
    if setting is not None:
        (tmp_path / "enabled").write_text(setting)
        (tmp_path / "hpage_pmd_size").write_text(str(LARGE_BYTES))
    monkeypatch.setattr(large_pages, "_SETTINGS", tmp_path)
    assert use_large_pages() == 0
