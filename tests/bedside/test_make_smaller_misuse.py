"""`bedside models quantize` and `prune` misused: one line for each mistake, nothing left behind."""

import errno
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.broken_arrays import BROKEN, broken, rows

from bedside.cli.main import main
from bedside.errors import BedsideError
from bedside.models import comparison as comparing
from bedside.models import compression, pruning
from bedside.models.comparison import open_session
from bedside.models.rows import RowsInvalid, read_rows

RANDOM = np.random.default_rng(5)
QUICK = ("--runs", "1", "--batch", "2", "--max-loss", "1000")
MODULE = """
import os, pathlib, time
import torch


def network():
    return torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))


def waits(module):
    pathlib.Path("waiting").touch()
    time.sleep(600)


def fails(module):
    raise ValueError("a secret")


def listed():
    made = network()
    made.forward = lambda x: [x]
    return made
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model of `x` [rows, 8], its rows, and a module and its weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "wards", raising=False)
    value, weights = helper.make_tensor_value_info, RANDOM.normal(size=(8, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [value("x", TensorProto.FLOAT, ["rows", 8])],
        [value("y", TensorProto.FLOAT, ["rows", 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    np.savez("rows.npz", x=rows())
    (tmp_path / "wards.py").write_text(MODULE)
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
    torch.save(torch.nn.Sequential(*layers).state_dict(), "weights.pt")
    return tmp_path


@pytest.fixture
def bedside(monkeypatch, capfd):
    """Run the command line; return its exit status, what it printed and what it complained of."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bedside", "models", *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            with pytest.raises(SystemExit) as ended:
                main()
        printed = capfd.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def quantize(bedside, data="rows.npz", *more):
    return bedside("quantize", "m.onnx", "q.onnx", "--data", data, *QUICK, *more)


def prune(bedside, data="rows.npz", *more, names=("--input", "x")):
    return bedside(
        "prune", "wards:network", "weights.pt", "q.onnx", "--data", data, *names, *QUICK, *more
    )


def left(folder):
    return {path.name for path in folder.iterdir() if path.name.startswith((".comp", "q."))}


def is_one_line(err, *said):
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("bedside: ")
    for part in said:
        assert part in lines[0], lines


def appearing(monkeypatch, appear):
    """Have `appear` called when both models were compared, just before the smaller is put in place."""
    compare = comparing.compare

    def compared(*arguments, **options):
        found = compare(*arguments, **options)
        appear()
        return found

    monkeypatch.setattr(comparing, "compare", compared)


@pytest.mark.parametrize("name", ["q.onnx", "q.json"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_appears_at_the_target_meanwhile_stays(here, bedside, monkeypatch, name, kind, links):
    target = here / name

    def appear():
        if kind == "file":
            target.write_bytes(b"theirs")
        elif kind == "folder":
            target.mkdir()
        else:
            target.symlink_to("nowhere")

    def refuse(source, target):
        raise PermissionError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    appearing(monkeypatch, appear)
    status, _, err = quantize(bedside)
    assert status == 1
    is_one_line(err, f"{name} exists; it is not replaced")
    assert left(here) == {name}
    assert {"file": target.is_file, "folder": target.is_dir, "link": target.is_symlink}[kind]()
    assert kind != "file" or target.read_bytes() == b"theirs"


def test_a_link_to_nothing_has_the_targets_name(here):
    (here / "q.onnx").symlink_to("nowhere")
    with pytest.raises(BedsideError, match="exists"):
        compression.check_target(here / "q.onnx")


def test_a_file_system_without_hard_links_is_written_to(here, bedside, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert quantize(bedside)[0] == 0
    assert left(here) == {"q.onnx", "q.json"}
    assert open_session(here / "q.onnx").inputs[0].name == "x"


@pytest.mark.parametrize("command", [quantize, prune])
def test_one_array_is_the_rows_of_the_one_input(here, bedside, command):
    np.save("rows.npy", rows())
    status, out, err = command(bedside, "rows.npy")
    assert (status, err) == (0, "")
    assert "written: q.onnx" in out


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("command", [quantize, prune])
def test_a_file_that_is_not_whole_arrays_is_refused(here, bedside, command, name):
    status, _, err = command(bedside, broken(name, here))
    assert status == 1
    is_one_line(err, f"{name} is not a whole .npz or .npy file of plain arrays")
    assert left(here) == set()


def test_one_array_is_not_the_rows_of_several_inputs(here):
    np.save("rows.npy", rows())
    (x,) = open_session(here / "m.onnx").inputs
    with pytest.raises(RowsInvalid, match="single array, and the model takes x, x"):
        read_rows(here / "rows.npy", (x, x))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (rows(width=9), "x (float32 [any, 9]): its layer 0 takes float32 [..., 8] and is given"),
        (
            rows().astype(np.int64),
            "x (int64 [any, 8]): its layer 0 takes float32 [..., 8] and is given",
        ),
        (np.float32(1), "the array x must be numbers, 2 rows or more"),
        (rows(1), "the array x must be numbers, 2 rows or more"),
        (rows(0), "the array x must be numbers, 2 rows or more"),
        (np.array(["a", "b"]), "the array x must be numbers, 2 rows or more"),
    ],
    ids=["shape", "dtype", "scalar", "one row", "no row", "text"],
)
def test_rows_that_a_module_cannot_take_are_refused_by_name(here, bedside, array, said):
    np.savez("rows.npz", x=array)
    status, _, err = prune(bedside)
    assert status == 1
    is_one_line(err, said)


def test_a_convolution_says_what_it_takes():
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3))
    with pytest.raises(pruning.PruningImpossible, match=r"layer 0 takes float32 \[any, 1, any, any\]"):
        pruning.check_examples(module, {"x": torch.zeros(2, 3, 8, 8)})
    pruning.check_examples(module, {"x": torch.zeros(2, 1, 8, 8)})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("wards:network", "weights.pt"), "no array input, which the module takes"),
        (
            ("wards:network", "weights.pt", "--input", "x", "--tune", "wards:fails"),
            "wards:fails failed: ",
        ),
        (("wards:network", "weights.pt", "--input", "x", "--tune", "wards:none"), "cannot be imported"),
        (("wards:fails", "weights.pt", "--input", "x"), "wards:fails failed: TypeError"),
        (("wards:listed", "weights.pt", "--input", "x"), "must return a tensor or a tuple of tensors"),
        (("wards:network", "rows.npz", "--input", "x"), "rows.npz is not a state dict"),
        (("wards:network", "none.pt", "--input", "x"), "none.pt: No such file"),
        (
            ("typo:network", "weights.pt", "--input", "x"),
            "typo:network cannot be imported: SyntaxError",
        ),
    ],
)
def test_ones_own_code_that_fails_is_one_line_without_its_message(here, bedside, arguments, said):
    (here / "typo.py").write_text("def network(:\n")
    module, checkpoint, *more = arguments
    status, _, err = bedside("prune", module, checkpoint, "q.onnx", "--data", "rows.npz", *QUICK, *more)
    assert status == 1
    is_one_line(err, said)
    assert "secret" not in err
    assert left(here) == set()


def test_a_module_that_cannot_be_exported_is_said_to_be_one(here):
    class Reading(torch.nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(pruning.PruningImpossible, match="cannot export the module to ONNX"):
        pruning.export_examples(Reading(), {"x": torch.ones(2, 8)}, here / "q.onnx")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("command", ["quantize", "prune"])
def test_told_to_stop_it_leaves_nothing(here, number, command):
    if command == "quantize":
        arguments = ["m.onnx", "q.onnx", "--runs", "100000", "--batch", "65536"]
    else:
        arguments = ["wards:network", "weights.pt", "q.onnx", "--input", "x", "--tune", "wards:waits"]
    scratch = here / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)}
    process = subprocess.Popen(
        [sys.executable, "-m", "bedside", "models", command, *arguments, "--data", "rows.npz"],
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        at_work = {"quantize": ".compressing-*/q.onnx", "prune": "waiting"}[command]
        deadline = time.monotonic() + 90
        while not list(here.glob(at_work)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert list(here.glob(".compressing-*"))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert left(here) == set()
    assert not list(scratch.glob("tmp*"))
    assert not list(scratch.glob("ort*"))
    assert "Traceback" not in out + err


def test_rows_without_a_finite_output_are_counted_and_not_compared(here, bedside):
    some = rows()
    some[:7] = np.nan
    some[7, 0] = np.inf
    np.savez("rows.npz", x=some)
    status, out, err = quantize(bedside, "rows.npz", "--dynamic")
    assert (status, err) == (0, "")
    assert "32 rows" in out
    (line,) = [line for line in out.splitlines() if "rows not compared" in line]
    assert " 8 " in line
    assert "nan" not in out
    status, _, err = bedside("quantize", "m.onnx", "s.onnx", "--data", "rows.npz", *QUICK)
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--dynamic",), "the original's output y is not finite on any of the 40 rows"),
        ((), "none of the rows to calibrate on is finite"),
    ],
)
def test_where_no_row_can_be_compared_that_is_said(here, bedside, more, said):
    np.savez("rows.npz", x=np.full((40, 8), np.nan, np.float32))
    status, out, err = quantize(bedside, "rows.npz", *more)
    assert (status, out) == (1, "")
    is_one_line(err, said)
    assert left(here) == set()


def test_a_pruned_model_without_a_finite_output_is_refused_without_warnings(here, bedside):
    with (here / "wards.py").open("a") as file:
        file.write("\n\ndef ruins(module):\n    module[0].weight.data[0, 0] = float('nan')\n")
    np.savez("rows.npz", x=rows(), labels=np.tile([0, 1], 20))
    status, _, err = prune(bedside, "rows.npz", "--tune", "wards:ruins")
    assert status == 1
    is_one_line(err, "the loss is inf (the smaller model's output is not finite on 40 of 40 rows)")
    assert left(here) == set()


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "much"])
def test_a_loss_that_is_no_number_is_no_limit(here, bedside, value):
    status, _, err = bedside(
        "quantize", "m.onnx", "q.onnx", "--data", "rows.npz", "--max-loss", value, "--runs", "1"
    )
    assert status == 2
    assert "max-loss" in err
    assert left(here) == set()


def test_a_ratio_that_is_no_number_is_refused(here, bedside):
    status, _, err = prune(bedside, "rows.npz", "--ratio", "nan")
    assert status == 2
    assert "ratio" in err


def test_labels_without_a_number_are_counted(here, bedside):
    np.savez("rows.npz", x=rows(), labels=np.r_[np.nan, np.inf, np.zeros(38)])
    status, _, err = quantize(bedside)
    assert status == 1
    is_one_line(err, "labels must be finite numbers: leave out the 2 rows without one")


def test_numbers_past_the_models_type_are_infinite_without_a_warning(here, bedside):
    some = rows().astype(np.float64)
    some[0] = 1e200
    np.savez("rows.npz", x=some)
    status, out, err = quantize(bedside, "rows.npz", "--dynamic")
    assert (status, err) == (0, "")
    assert "rows not compared" in out


@pytest.mark.parametrize("command", [quantize, prune])
def test_an_output_that_cannot_be_judged_by_costs_no_work(here, bedside, monkeypatch, command):
    worked = []
    monkeypatch.setattr("bedside.models.quantization.quantize_static", worked.append)
    monkeypatch.setattr(pruning, "prune", worked.append)
    status, _, err = command(bedside, "rows.npz", "--judged", "z")
    assert (status, worked) == (1, [])
    # What the outputs of an exported module are called is torch's.
    is_one_line(err, "the output to judge by must be one of floating point: ")


def test_a_folder_is_not_a_model(here, bedside):
    (here / "models" / "digits").mkdir(parents=True)
    status, _, err = bedside("quantize", "models/digits", "q.onnx", "--data", "rows.npz")
    assert status == 1
    is_one_line(err, "models/digits is a folder; name the .onnx file in it")


def test_a_folder_that_cannot_be_written_to_is_named(here, bedside, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/x/.compressing-1")

    monkeypatch.setattr(compression.tempfile, "TemporaryDirectory", refuse)
    status, _, err = quantize(bedside)
    assert status == 1
    is_one_line(err, "the folder . cannot be written to: Read-only file system")


def test_a_full_disk_is_not_the_models_fault(here, bedside, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bedside.models.quantization.quantize_static", full)
    status, _, err = quantize(bedside)
    assert status == 1
    is_one_line(err, "No space left on device")
    assert left(here) == set()
