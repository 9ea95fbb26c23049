"""What leaves a component's process is what is listed: at debug level, through errors and crashes.

Seen to fail: without the pipe in `Outlet`, with `str(value)` for a name in `Screen._rendered`, with
`str(error)` in `describe`, without the limit or the `prctl` in `forbid_core_dumps`.
"""

import ast
import importlib
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from support.canaries import Planter
from support.sites import make_site

from bedside.telemetry import Dropped, SiteNames, What
from bedside.telemetry.catalogue import MESSAGES
from bedside.telemetry.describe import SPOKEN
from bedside.telemetry.metrics import ScreenedCollector

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "audit",
    "bedside",
    "console",
    "coordinator",
    "inference_node",
    "policies",
    "secure_gateway",
)
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}


def run(tmp_path, how, word):
    done = subprocess.run(
        [sys.executable, "-m", "support.leaking", str(tmp_path / "site"), how, word],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def withheld(errors):
    told = re.findall(r"withheld so far: (\d+) .* (\d+) .* (\d+) .* \d+ samples", errors)
    return tuple(map(int, told[-1]))


@pytest.mark.parametrize(
    ("how", "status", "counts", "told"),
    [
        # What is dropped: messages, parts of messages, lines of output.
        ("log", 0, (7, 4, 2), "record 7 of clinic/gateway-1 waits for 2 s: ValidationError at"),
        ("output", 0, (1, 0, 6), "a message was withheld, of warnings:"),
        ("errors", 0, (1, 0, 0), "a thread ended: ValueError at"),
        ("raise", 1, None, "CRITICAL bedside.telemetry: the process ends: ValidationError at"),
        ("raise ours", 1, None, "the process ends: ValidationError at"),
    ],
)  # fmt: skip
def test_only_what_is_listed_is_written_and_the_rest_is_counted(tmp_path, how, status, counts, told):
    plant = Planter()
    word = plant.text()
    code, output, errors = run(tmp_path, how, word)
    assert code == status
    assert output == "ready\n"
    assert told in errors
    assert not list(plant.canaries.matches((output + errors).encode()))
    if counts is not None:
        assert withheld(errors) == counts


def test_what_may_be_said_is_said_in_full(tmp_path):
    _, _, errors = run(tmp_path, "log", "x")
    assert (
        "record (withheld) of clinic/gateway-1 waits for (withheld) s: LogUnavailable: the log"
        in errors
    )
    assert "no connection is accepted for 1 s: OSError [ENOSPC]\n" in errors
    assert "record 8 of (withheld) waits for 2 s: (withheld)" in errors
    assert re.search(r"ERROR asyncio: a message about ValidationError at \S+ was withheld", errors)


def test_no_core_dump_can_be_written_whatever_the_limit_was(tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limits = resource.prlimit(0, resource.RLIMIT_CORE, (hard, hard))
    try:
        _, output, _ = run(tmp_path, "dumps", "x")
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limits)
    # Where nobody may have dumps at all, the limit stays 0.
    assert output == f"ready\nlimit {1 if hard else 0}, dumpable 0\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_crash_leaves_no_memory_behind_and_says_only_where_it_was(tmp_path, number):
    plant = Planter()
    word = plant.text()
    read, write = os.pipe()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "support.leaking", str(tmp_path / "site"), str(int(number)), word],
        {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        file_actions=[(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)],
    )
    os.close(write)
    with os.fdopen(read, "rb") as output:
        said = output.read()
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == number
    assert not os.WCOREDUMP(status)
    assert not list(plant.canaries.matches(said))
    assert said.startswith(b"ready\n")
    assert (b"in leak" in said) is (number != signal.SIGKILL)


def test_metrics_that_are_not_listed_are_dropped_and_counted(tmp_path):
    class Leaking:
        def collect(self):
            yield GaugeMetricFamily("bedside_gateway_patients", "not listed", value=1)
            requests = CounterMetricFamily("bedside_node_rows", "listed", labels=["model", "version"])
            requests.add_metric(["breast-cancer", "1"], 3)
            requests.add_metric(["mrn-0001", "1"], 4)
            requests.add_metric(["breast-cancer", "born-1971"], 5)
            yield requests
            yield CounterMetricFamily("bedside_gateway_cache_stored", "listed", value=6)
            spread = GaugeMetricFamily("bedside_gateway_log_records", "listed", labels=["subject"])
            spread.add_metric(["mrn-0001"], 7)
            yield spread

    dropped = Dropped()
    families = list(ScreenedCollector([Leaking()], SiteNames(make_site(tmp_path)), dropped).collect())
    kept = {family.name: [sample.value for sample in family.samples] for family in families}
    assert kept.pop("bedside_telemetry_dropped") == [0, 0, 0, 4]
    assert kept == {
        "bedside_node_rows": [3],
        "bedside_gateway_cache_stored": [6],
        "bedside_gateway_log_records": [],
    }
    assert dropped.counts()[What.SAMPLE] == 4


def sources():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield module.removesuffix(".__init__"), ast.parse(path.read_text())


def messages_in(module, tree):
    """Yield the logger's name, the text and the number of parts of each message that a module logs."""
    aliases = {"say"} if module == "audit.cosigning" else set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        named = isinstance(function, ast.Name) and function.id in aliases
        logs = (
            isinstance(function, ast.Attribute)
            and function.attr in LEVELS
            and ast.unparse(function.value) in ("logger", "self.logger")
        )
        if named or logs:
            text, *parts = node.args
            assert isinstance(text, ast.Constant), (module, ast.unparse(text))
            assert not node.keywords, (module, ast.unparse(node))
            starred = any(isinstance(part, ast.Starred) for part in parts)
            # uvicorn hands its own logger on to what derives from it; telemetry logs as the package.
            name = {
                "bedside.http_cycle": "uvicorn.error",
                "bedside.http_protocol": "uvicorn.error",
                "bedside.telemetry.process": "bedside.telemetry",
            }.get(module, module)
            yield name, text.value, text.value.count("%") if starred else len(parts)


def test_every_message_that_we_log_is_listed_and_no_other():
    logged = {found for module, tree in sources() for found in messages_in(module, tree)}
    assert len(logged) > 30
    listed = {
        (name, text, len(kinds)) for name, texts in MESSAGES.items() for text, kinds in texts.items()
    }
    foreign = {found for found in listed - logged if found[0] == "uvicorn.error"}
    assert logged == listed - foreign
    assert len(foreign) == 2


# What texts of errors that may speak are put together from, by class: numbers, our own files and
# folders, names of logs, witnesses and destinations, types of errors, and texts of errors that may
# speak as well. Whoever adds to it says by that that it is none of what a caller sent.
SAID = {
    "BundleOutdated": {"bundle.version", "version", "version + 1", "highest", "highest + 1"},
    "BundleUnderSigned": {"len(names)", "needed", "', '.join(names)"},
    "BundleUntrusted": {"SIGNATURES_MAX", "DOCUMENT_MAX_BYTES", "error.strerror"},
    "DeliveryFailed": {"kind", "status", "_kind(error)", "type(error).__name__"},
    "FollowerLost": {"self._path", "name", "path"},
    "LogBusy": {"folder"},
    "LogCorrupt": {
        "error", "path", "tree.size", "published.size", "published.size - 1",
        "first + len(leaves)",
        "start + len(read)", "segment", "tile_path(tile_level, tile)",
    },
    "LogUnavailable": {"reason", "WAITING_MAX", "error.strerror", "source.verifier.name"},
    "ModelNotReady": {
        "tensor.name", "tensor.datatype", "actual.datatype", "list(wanted)", "list(actual.shape)",
        "axis", "said.format(tensor.name)",
        "value.name", "PREFIX", "name", "reason", "error", "version or 'none'", "provider", "kind",
        "self._failed[name, wanted]", "config.model_file", "_NAME_RULE",
    },
    "VerificationError": {
        "WIDTH", "NOTE_MAX_BYTES", "PROOF_MAX", "len(found)", "len(witnesses)", "quorum",
        "witness.name",
        "destination", "number", "position", "index", "tree_size", "second", "first", "verifier.name",
        "folder / FILE", "folder", "name", "wanted", "path", "stored_width", "start", "start + count",
        "count", "error", "tile_path(level, index, width)", "tile_path(level, tile, width)",
        "tile_path(0, tile, width)", "minimum", "checkpoint.size", "log.origin",
        "origin", "seen.size", "log.minimum",
    },
    "WitnessUnavailable": {"path"},
    "WorkStoreError": {"self._path", "path"},
}  # fmt: skip


def test_errors_that_may_speak_say_nothing_that_was_sent():
    said = {}
    for module, tree in sources():
        if module.startswith("audit.reports."):
            continue
        for node in ast.walk(tree):
            name = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if name in {spoken.rpartition(".")[2] for spoken in SPOKEN} and node.args:
                found = said.setdefault(name, set())
                text = node.args[0]
                if isinstance(text, ast.JoinedStr):
                    parts = [part for part in text.values if isinstance(part, ast.FormattedValue)]
                    found.update(ast.unparse(part.value) for part in parts)
                elif not isinstance(text, ast.Constant):
                    found.add(ast.unparse(text))
    assert set(SAID) <= set(said)
    assert not {name: new for name, parts in said.items() if (new := parts - SAID.get(name, set()))}
    for spoken in SPOKEN:
        module, _, name = spoken.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type)
