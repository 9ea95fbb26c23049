"""The demo's story, told as it happens; every claim in it is checked."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from audit.records import Action, RequestRecord, decode
from audit.reports import KINDS, write_package
from audit.reports.making import ReportOrder
from audit.tiles import tile_path
from audit.verify import read_checkpoint, read_entries
from bedside.api import call_api
from bedside.children import bedside_command
from bedside.demo.canaries import Canaries, written_files
from bedside.demo.scenarios import REFUSED, Answer, Scenario, ask, scenarios
from bedside.demo.stage import COHORT_MINIMUM, Stage
from bedside.errors import BedsideError
from bedside.example import EXAMPLE_MODEL, THRESHOLD, Cohorts, Patient, matrix, split
from bedside.example.publish import Published, publish_example
from bedside.up import environment_of
from bedside_client import DeviceState, Prediction, SyncClient
from coordinator.federated.statistics import Metrics

PREDICTION_TOLERANCE: Final = 1e-5
AUROC_TOLERANCE: Final = 0.002
EXACT: Final = 1e-9
POLL_S: Final = 0.3
JOB_TIMEOUT_S: Final = 90


class Checks:
    """The expectations of the run, and which failed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.held = 0
        self.failed: list[str] = []

    def expect(self, claim: str, holds: bool) -> None:
        """Note whether a claim holds, and say so at once if it does not."""
        if holds:
            self.held += 1
            return
        self.failed.append(claim)
        self._console.print(f"[bold red]NOT as expected:[/] {claim}")


def run_demo(state: Path | None) -> None:
    """Run the demo and leave its files in `state`, or in a folder of its own that it names.

    Raises:
        BedsideError: if any expectation failed.
    """
    started = time.monotonic()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)
    folder = _folder(state)
    console.print(f"[bold]Bedside demo[/]; everything it writes is in {folder}\n")
    checks = Checks(console)
    canaries = Canaries()
    cohorts = split()
    with Stage(folder, cohorts) as stage:
        _heading(console, 1, "The data: 569 real patients (breast cancer, Wolberg et al. 1995)")
        _tell_data(console, cohorts)
        _heading(console, 2, "The model: train, export, check, sign, publish")
        published = publish_example(stage.site, cohorts, folder / "training")
        _tell_release(console, checks, published, cohorts)
        _heading(console, 3, "Start every process, then ask with an unmodified client (tritonclient)")
        _tell_processes(console, stage.start_servers() + stage.start_devices())
        _ask_all(console, checks, stage, cohorts, published, canaries)
        _heading(console, 4, "Preflight: the SDK asks with facts only, and runs where it is told")
        _preflight(console, checks, stage, cohorts, published, canaries)
        _heading(console, 5, "Federated evaluation on Flower: four devices, only sums return")
        _federate(console, checks, stage, cohorts, published)
        stage.stop()
        _heading(console, 6, "The audit report, and what happens to a log that was tampered with")
        _report(console, checks, stage)
    _heading(console, 7, "A search for content in everything that was written")
    _search(console, checks, folder, canaries)
    took = time.monotonic() - started
    console.print(
        f"\n[bold]{checks.held} expectations held[/], {len(checks.failed)} failed, in {took:.0f} s. "
        f"Files: {folder}"
    )
    if checks.failed:
        raise BedsideError(f"{len(checks.failed)} expectations failed, the first: {checks.failed[0]}")


def _folder(state: Path | None) -> Path:
    if state is None:
        return Path(tempfile.mkdtemp(prefix="bedside-demo-"))
    if state.exists() and any(state.iterdir()):
        raise BedsideError(f"{state} is not empty; name a new folder for the run")
    state.mkdir(parents=True, exist_ok=True)
    return state.resolve()


def _heading(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}. {text}[/]")


def _tell_data(console: Console, cohorts: Cohorts) -> None:
    table = Table("holder", "patients", "malignant", "used for")
    for name, patients in cohorts.hospitals.items():
        table.add_row(f"hospital {name}", *_numbers(patients), "training")
    for number, patients in enumerate(cohorts.devices, start=1):
        table.add_row(f"device {number}", *_numbers(patients), "never leaves the device")
    table.add_row("held out", *_numbers(cohorts.test), "checking the artifact")
    console.print(table)


def _numbers(patients: tuple[Patient, ...]) -> tuple[str, str]:
    return str(len(patients)), str(sum(patient.label for patient in patients))


def _tell_release(console: Console, checks: Checks, published: Published, cohorts: Cohorts) -> None:
    release, equivalence = published.release, published.release.equivalence
    x, y = matrix(cohorts.test)
    accuracy = float(((_probabilities(published, x)[:, 1] >= THRESHOLD) == y).mean())
    table = Table("release", "accuracy, held out", "ONNX against checkpoint", "SHA-256", "signed")
    table.add_row(
        f"{release.model} v{release.version}",
        f"{accuracy:.3f}",
        f"at most {equivalence.max_abs_difference:.1e} (limit {equivalence.tolerance:.0e})",
        f"{release.digest[:16]}\u2026",
        "Ed25519 (DSSE)",
    )
    console.print(table)
    checks.expect("the model is right on more than 93 % of held-out patients", accuracy > 0.93)


def _tell_processes(console: Console, processes: list[tuple[str, int, str]]) -> None:
    table = Table("process", "pid", "says")
    for name, pid, words in processes:
        table.add_row(name, str(pid), words)
    console.print(table)


def _ask_all(
    console: Console,
    checks: Checks,
    stage: Stage,
    cohorts: Cohorts,
    published: Published,
    canaries: Canaries,
) -> None:
    table = Table("request", "ran on", "why", "prediction", show_lines=True)
    for scenario in scenarios(cohorts):
        answer = ask(stage.gateway_address, stage.tokens[scenario.who], scenario, canaries)
        _check(checks, scenario, answer, published)
        why = escape(answer.refusal or f"{answer.policies}\n{answer.citations}")
        if answer.obligations:
            why += f"\n[yellow]flagged: {answer.obligations}[/]"
        table.add_row(
            f"{scenario.title}\n[dim]{scenario.who}[/]",
            f"[red]{REFUSED}[/]" if answer.placement == REFUSED else f"[green]{answer.placement}[/]",
            why,
            "" if answer.prediction is None else f"malignant {answer.prediction[0, 1]:.4f}",
        )
    console.print(table)


def _check(checks: Checks, scenario: Scenario, answer: Answer, published: Published) -> None:
    title = scenario.title
    checks.expect(f"{title}: runs on {scenario.runs_on}", answer.placement.startswith(scenario.runs_on))
    checks.expect(
        f"{title}: determined by {scenario.policy}",
        scenario.policy in (answer.policies or answer.refusal),
    )
    if answer.prediction is not None:
        own = _probabilities(published, scenario.patient.features.reshape(1, -1))
        checks.expect(
            f"{title}: the prediction is the model's own",
            bool(np.abs(answer.prediction - own).max() <= PREDICTION_TOLERANCE),
        )


def _preflight(
    console: Console,
    checks: Checks,
    stage: Stage,
    cohorts: Cohorts,
    published: Published,
    canaries: Canaries,
) -> None:
    folder = next(path for path in sorted(stage.devices) if path.name == "device-1")
    patient = cohorts.devices[0][1]
    canaries.add_text(patient.subject, patient.name)
    canaries.add_values(patient.features)
    row = patient.features.reshape(1, -1)
    with SyncClient(state=DeviceState.open(folder)) as client:
        answer: Prediction = client.infer(
            EXAMPLE_MODEL, {"x": row}, subject=patient.subject, purpose="TREAT"
        )
    prediction = answer.outputs["y"]
    canaries.add_values(prediction)
    table = Table("step", "result")
    table.add_row("placement, asked with facts only", f"[green]{answer.placement}[/]")
    table.add_row("why", f"{', '.join(answer.policies)}\n{'; '.join(answer.citations)}")
    table.add_row("prediction, made on the device", f"malignant {prediction[0, 1]:.4f}")
    table.add_row("receipt, in the log as", answer.record)
    console.print(table)
    checks.expect("the device is told to stay on the device", answer.placement == "device:self")
    difference = np.abs(prediction - _probabilities(published, row)).max()
    checks.expect(
        "the device's prediction is the model's own", bool(difference <= PREDICTION_TOLERANCE)
    )
    checks.expect("the receipt is recorded", "#" in answer.record)


def _federate(
    console: Console, checks: Checks, stage: Stage, cohorts: Cohorts, published: Published
) -> None:
    url = f"{stage.coordinator_url}/v1/federated/jobs"
    token = stage.tokens["e.ito"]
    job = call_api("POST", url, token, {"kind": "evaluate", "model": EXAMPLE_MODEL})
    deadline = time.monotonic() + JOB_TIMEOUT_S
    with console.status("waiting for four devices to answer over Flower"):
        while job["state"] in ("queued", "running") and time.monotonic() < deadline:
            time.sleep(POLL_S)
            job = call_api("GET", f"{url}/{job['id']}", token)
    if job["state"] != "done":
        checks.expect(f"the federated job is done (it is {job['state']}: {job['reason']})", holds=False)
        return
    federated = msgspec.convert(job["result"], Metrics)
    pooled = _pooled(cohorts, published)
    table = Table("metric", "federated, from sums", "pooled, for comparison only", "difference")
    for name in Metrics.__struct_fields__:
        ours, theirs = getattr(federated, name), getattr(pooled, name)
        table.add_row(name, _number(ours), _number(theirs), f"{abs(ours - theirs):.1e}")
        tolerance = AUROC_TOLERANCE if name == "auroc" else EXACT
        checks.expect(f"federated {name} equals the pooled one", abs(ours - theirs) <= tolerance)
    console.print(table)
    console.print(
        f"{job['cohort']} devices answered; the site's minimum cohort is k = {COHORT_MINIMUM} for the "
        "demo (10 by default). The pooled figures are computed by the demo itself, which made the data."
    )
    checks.expect("all four devices answered", job["cohort"] == len(cohorts.devices))


def _pooled(cohorts: Cohorts, published: Published) -> Metrics:
    """Return the exact metrics over all devices' rows in one place, which nobody else can compute."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 only this comparison needs it

    x, y = matrix([patient for device in cohorts.devices for patient in device])
    scores = _probabilities(published, x)[:, 1]
    said = scores >= THRESHOLD
    return Metrics(
        rows=len(y),
        accuracy=float((said == y).mean()),
        sensitivity=float(said[y == 1].mean()),
        specificity=float((~said[y == 0]).mean()),
        auroc=float(roc_auc_score(y, scores)),
    )


def _report(console: Console, checks: Checks, stage: Stage) -> None:
    site = stage.site
    made = asyncio.run(site.report_maker().make(ReportOrder(kind=KINDS["access"])))
    report = made.report
    files = write_package(made.package, made.receipt, stage.folder / "report")
    table = Table("record", "who", "about", "event", "ran on", "outcome", "policies")
    for entry, record in report.of(RequestRecord):
        if record.subject is not None and record.action is not Action.STREAM_END:
            table.add_row(
                f"{entry.origin}#{entry.index}",
                record.principal or "",
                f"{record.subject[:12]}\u2026",
                record.action.value,
                record.placement or "",
                record.outcome.value,
                ", ".join(record.policies),
            )
    console.print(table)
    console.print(f"Report: {files.pdf}\n        {files.zip}")
    environment = environment_of(site.config)
    good = _bedside(environment, "audit", "verify")
    console.print(f"\n$ bedside audit verify\n{good.stdout.strip()}")
    checks.expect("the logs verify", good.returncode == 0)
    offline = _bedside(environment, "audit", "verify", str(files.zip))
    console.print(f"\n$ bedside audit verify access-report.zip\n{offline.stdout.strip()}")
    checks.expect("the report verifies offline", offline.returncode == 0)
    copy, index = _tamper(stage)
    bad = _bedside(environment, "audit", "verify", str(copy))
    console.print(
        f"\nOne byte of record {index} is changed in a copy of the gateway's log:\n"
        f"$ bedside audit verify {copy}\n[red]{bad.stderr.strip()}[/]"
    )
    checks.expect("the tampered copy does not verify", bad.returncode != 0)
    checks.expect("the tampered record is named", f"record {index} " in bad.stderr)


def _tamper(stage: Stage) -> tuple[Path, int]:
    """Copy the gateway's log and change one byte in one stored record; return copy and index."""
    replica = stage.site.config.gateway.replica
    source = stage.site.log_folder(replica)
    copy = stage.folder / "tampered" / replica
    shutil.copytree(source, copy)
    checkpoint = read_checkpoint(copy, stage.site.log_verifier(replica))
    entries = read_entries(copy, checkpoint.size)
    index = next(
        number
        for number, leaf in enumerate(entries)
        if b'"refused"' in leaf and getattr(decode(leaf), "subject", None)
    )
    bundle = copy / tile_path(None, 0, checkpoint.size)
    data = bundle.read_bytes()
    place = data.index(entries[index]) + entries[index].index(b'"refused"') + 1
    bundle.write_bytes(data[:place] + b"R" + data[place + 1 :])
    return copy, index


def _search(console: Console, checks: Checks, folder: Path, canaries: Canaries) -> None:
    held = [*folder.glob("devices/*/data.sqlite*")]
    files = written_files(folder, excluded=held)
    findings = list(canaries.search(files))
    for finding in findings:
        console.print(f"[bold red]found[/] {finding.kind} in {finding.path}")
    size = sum(path.stat().st_size for path in files) / 1e6
    console.print(
        f"{canaries.count} forms of names, identifiers, inputs and outputs were looked for in "
        f"{len(files)} files ({size:.1f} MB): databases, logs, output, reports, Flower's files.\n"
        f"Left out are only the {len(held)} stores in which the devices hold their own patients."
    )
    checks.expect("no content was written anywhere", not findings)
    leak = folder / "planted-leak.log"
    canaries.add_text("planted-canary-7f3a91")
    leak.write_text("an imagined leak: planted-canary-7f3a91\n")
    found = {finding.path for finding in canaries.search([leak])}
    leak.unlink()
    console.print("A leak planted on purpose was found, so the search can find one.")
    checks.expect("the search finds a planted leak", found == {leak})


def _bedside(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        bedside_command(*arguments),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _probabilities(published: Published, x: Any) -> Any:  # noqa: ANN401
    with torch.inference_mode():
        return published.model(torch.from_numpy(x)).numpy()


def _number(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
