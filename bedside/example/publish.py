"""Takes the example from data to a signed release: train, export, check, sign, publish."""

import hashlib
from pathlib import Path

import torch
from msgspec import Struct

from bedside.example.data import FEATURES, Cohorts, matrix
from bedside.example.training import EXAMPLE_MODEL, THRESHOLD, Classifier, train
from bedside.models import check_equivalence, describe, export
from bedside.site import Site
from coordinator import (
    Release,
    ReleasedEquivalence,
    ReleasedTensor,
    build_release,
    sign_release,
)


class Published(Struct, frozen=True, kw_only=True):
    """The example's release, and the checkpoint that it was made from."""

    release: Release
    model: Classifier
    new: bool


def publish_example(site: Site, cohorts: Cohorts, folder: Path, version: int = 1) -> Published:
    """Train on the hospitals' patients, check on the held-out ones, and publish.

    The checkpoint and the artifact are left in `folder`.

    Raises:
        EquivalenceError: if the artifact does not compute what the checkpoint does.
        ReleaseError: if the version is taken by another file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patients = [patient for hospital in cohorts.hospitals.values() for patient in hospital]
    model = train(*matrix(patients))
    checkpoint, artifact = folder / "checkpoint.pt", folder / "model.onnx"
    torch.save(model.state_dict(), checkpoint)
    export(model, FEATURES, artifact)
    held_out, _ = matrix(cohorts.test)
    equivalence = check_equivalence(model, artifact, held_out)
    inputs, outputs = describe(artifact)
    release = build_release(
        artifact,
        model=EXAMPLE_MODEL,
        version=version,
        inputs=[ReleasedTensor(name=i.name, datatype=i.datatype, shape=i.shape) for i in inputs],
        outputs=[ReleasedTensor(name=o.name, datatype=o.datatype, shape=o.shape) for o in outputs],
        equivalence=ReleasedEquivalence(
            rows=equivalence.rows,
            max_abs_difference=equivalence.max_abs_difference,
            tolerance=equivalence.tolerance,
        ),
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        threshold=THRESHOLD,
    )
    document = sign_release(release, site.keys.signing_key("release"))
    published, new = site.releases().publish(document, artifact)
    return Published(release=published, model=model, new=new)
