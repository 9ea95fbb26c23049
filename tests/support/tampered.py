"""Changes to a report that verification must notice, each with the words that it must say so in.

Both verifiers, `bedside audit verify` and the page for browsers, are held to these.
"""

import base64
import hashlib
import json


def without_a_record(files):
    """Leave out a record and everything that follows from it, and write a manifest for what is left."""
    document = json.loads(files["report.json"])
    document["entries"].pop()
    document["made_by"] = "bedside 0.0.0"
    files["report.json"] = json.dumps(document).encode()
    remake_manifest(files)


def remake_manifest(files):
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in files.items()
        if name not in ("manifest.json", "receipt.json")
    }
    files["manifest.json"] = json.dumps(manifest).encode()


def another_row(files):
    name = "tables/requests.csv"
    files[name] = b"\r\n".join(files[name].split(b"\r\n")[:-2])


def dropped_and_manifest(files):
    another_row(files)
    remake_manifest(files)


def receipt(change):
    def edit(files):
        document = json.loads(files["receipt.json"])
        change(document)
        files["receipt.json"] = json.dumps(document).encode()

    return edit


def unsigned(document):
    lines = document["log"]["checkpoint"].split("\n")
    document["log"]["checkpoint"] = "\n".join([*lines[:4], "\u2014 no signature", ""])


def forged(document):
    """Keep the signer and its key's id, and sign with nothing."""
    head, _, signature = document["log"]["checkpoint"].rstrip("\n").rpartition(" ")
    raw = base64.b64decode(signature)
    changed = base64.b64encode(raw[:4] + bytes(64)).decode()
    document["log"]["checkpoint"] = f"{head} {changed}\n"


def resized(document):
    text = document["log"]["checkpoint"]
    name, size, rest = text.split("\n", 2)
    document["log"]["checkpoint"] = f"{name}\n{int(size) + 1}\n{rest}"


ZIP_CHANGES = [
    (another_row, r"tables/requests.csv was changed"),
    (dropped_and_manifest, "not the one that the site's log recorded"),
    (without_a_record, "not the one that the site's log recorded"),
    (receipt(lambda d: d["entry"]["record"].update(digest="00" * 32)), "was changed in the report"),
    (receipt(lambda d: d["entry"].update(proof=["AA=="])), "record .*(proof is too long|is not what)"),
    (receipt(lambda d: d["entry"].update(index=-1)), "record -1 lies outside"),
    (receipt(lambda d: d["entry"].update(leaf="e30=")), "is not what the log's root commits to"),
    (receipt(lambda d: d["log"].update(size=d["log"]["size"] + 1)), "is not what was signed"),
    (receipt(lambda d: d["log"].update(origin="x/y")), "key was not given"),
    (receipt(lambda d: d.update(more=1)), "receipt.json is malformed"),
    (receipt(lambda d: d.update(format="other")), "receipt.json has another format"),
    (receipt(unsigned), "a signature line is malformed"),
    (receipt(forged), "the signature of st-anna/reports does not verify"),
    (receipt(resized), "the signature of st-anna/reports does not verify"),
    (lambda files: files.pop("receipt.json"), "has no receipt.json"),
    (lambda files: files.pop("records.csv"), "records.csv is in only one"),
    (lambda files: files.update({"more.txt": b"?"}), "more.txt is in only one"),
    (lambda files: files.update({"report.pdf": b"%PDF"}), "report.pdf was changed"),
    (lambda files: files.update({"receipt.json": b"{}"}), "malformed"),
    (
        lambda files: files.update({"manifest.json": b"\xff"}),
        "not the one that the site's log recorded",
    ),
]


def swap(document):
    """Put two neighbours of different times in each other's place."""
    entries = document["entries"]
    entries[0], entries[-1] = entries[-1], entries[0]


def in_record(document):
    document["entries"][1]["record"]["principal"] = "dr.nobody"


def other_head(document):
    document["logs"].append(document["logs"][0])


# Of a report without filters over several logs, whose records do not all have one time.
JSON_CHANGES = [
    (lambda d: d["entries"].pop(2), "is missing from the report"),
    (lambda d: d["entries"].append(d["entries"][2]), "is there twice"),
    (in_record, "was changed in the report"),
    (other_head, "names a log twice"),
    (lambda d: d["entries"][0].update(index=3), "record 3 is not what"),
    (lambda d: d["entries"][0].update(index=9999), "record 9999 lies outside"),
    (lambda d: d["entries"][0].update(proof=[]), "is not what"),
    (lambda d: d["entries"][0]["proof"].extend(["A" * 43 + "="] * 9), "the proof is too long"),
    (lambda d: d["entries"][0].update(leaf="?"), "its proof is not base64"),
    (lambda d: d["entries"][0].update(origin="x/y"), "does not name"),
    (lambda d: d["logs"][0].update(size=d["logs"][0]["size"] + 1), "is not what was signed"),
    (lambda d: d["logs"][0].update(root="00" * 32), "is not what was signed"),
    (lambda d: d["logs"][0].update(verifier="x+00000000+AA=="), "is not what was signed"),
    (lambda d: d["logs"].clear(), "does not name"),
    (lambda d: d.update(format="other"), "another format"),
    (lambda d: d.update(kind="other"), "does not know"),
    (swap, "not in order"),
    (lambda d: d.pop("entries"), "not a report"),
    (lambda d: d["filters"].update(more=1), "not a report"),
    (lambda d: d["filters"].update(since="yesterday"), "not a report"),
    (lambda d: d["entries"][0].update(proof=[1]), "not a report"),
]
