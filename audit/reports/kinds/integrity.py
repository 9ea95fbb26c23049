"""The integrity statement: which logs there are, how far they go, and what was verified of them."""

from typing import Final

from audit.checkpoint import Checkpoint
from audit.reports.kind import Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Report
from audit.reports.words import clock, where


def figures(report: Report) -> list[Figure]:
    """Return how much was verified."""
    records = sum(len(report.span(log)) for log in report.checkpoints)
    return [
        Figure("logs", len(report.checkpoints)),
        Figure("records verified", records, Tone.CALM),
        Figure("signatures", len(report.checkpoints), Tone.CALM),
        Figure("empty logs", sum(not log.size for log in report.checkpoints)),
        *_pruned(report),
    ]


def _pruned(report: Report) -> list[Figure]:
    gone = sum(minimum.index for minimum in report.pruned.values())
    return [Figure("records pruned", gone, Tone.CAUTION)] if gone else []


def charts(_: Report) -> list[Chart]:
    """Return none: there is nothing to compare."""
    return []


def tables(report: Report) -> list[Table]:
    """Return each log's head, its span in time, and what was checked."""
    span = {
        log.origin: [entry for entry in report.entries if entry.origin == log.origin]
        for log in report.checkpoints
    }
    return [
        Table(
            name="logs",
            title="The logs",
            columns=(
                Column("Log", 0),
                Column("Records", 0, Style.NUMBER),
                Column("First record (UTC)", 0),
                Column("Last record (UTC)", 0),
                Column("Signed by", 1),
            ),
            rows=[
                [
                    log.origin,
                    str(log.size),
                    clock(span[log.origin][0].record.time) if span[log.origin] else "",
                    clock(span[log.origin][-1].record.time) if span[log.origin] else "",
                    ", ".join(_signers(log)),
                ]
                for log in report.checkpoints
            ],
        ),
        Table(
            name="roots",
            title="Their signed root hashes",
            columns=(Column("Log", 0), Column("Root hash (SHA-256)", 1, Style.CODE)),
            rows=[[log.origin, log.root.hex()] for log in report.checkpoints],
        ),
        Table(
            name="verified",
            title="What was verified when this statement was made",
            columns=(Column("Check", 1), Column("Of what", 1.4), Column("Result", 0)),
            rows=_checks(report),
        ),
        Table(
            name="edges",
            title="The first and the last record of each log",
            intro="With this report's JSON form, each of them is proved to stand in its log.",
            columns=(
                Column("Record", 1),
                Column("Time (UTC)", 0),
                Column("Type", 1),
                Column("Id", 2, Style.CODE),
            ),
            rows=[
                [
                    where(entry),
                    clock(entry.record.time),
                    str(type(entry.record).__struct_config__.tag),
                    str(entry.record.id),
                ]
                for entry in report.entries
            ],
        ),
    ]


def _checks(report: Report) -> list[list[str | list[str]]]:
    hashes = sum(checkpoint.size for checkpoint in report.checkpoints)
    number = sum(len(report.span(checkpoint)) for checkpoint in report.checkpoints)
    logs = f"{len(report.checkpoints)} checkpoints"
    return [
        ["Ed25519 signature of each log's own key", logs, "verified"],
        ["Each hash is in the tree that the root commits to", f"{hashes} leaf hashes", "verified"],
        ["Each record is what was hashed", f"{number} records", "verified"],
        ["Each record is one of the types that Bedside records", f"{number} records", "verified"],
        ["Stored tiles of inner hashes are those of the tree", "every tile", "verified"],
    ]


def _signers(checkpoint: Checkpoint) -> list[str]:
    """Return who has a signature line in a checkpoint's note."""
    signatures = checkpoint.note.decode().rpartition("\n\n")[2].splitlines()
    return [line.split(" ")[1] for line in signatures]


INTEGRITY: Final = Kind(
    name="integrity",
    title="Integrity statement",
    subtitle="Which logs there are, how far they go, and what was verified of them",
    basis=("45 CFR 164.312(c)(1)", "45 CFR 164.316(b)(2)(i)"),
    edges=True,
    figures=figures,
    charts=charts,
    tables=tables,
    notes=(
        "Filters do not apply: the statement is about the logs as a whole, up to their checkpoints.",
        (
            "Of the signature lines, the log's own was verified. A witness's line shows that "
            "somebody else saw the same log, once its signature is verified with the key that the "
            "witness itself publishes."
        ),
        (
            "What a log never received, no log can show: that every request is recorded before it "
            "is answered is a property of the gateway, not of the log."
        ),
    ),
)
