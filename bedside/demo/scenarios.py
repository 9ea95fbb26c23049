"""The requests of the demo, sent with an unmodified Open Inference Protocol client (tritonclient)."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from bedside.demo.canaries import Canaries
from bedside.example import EXAMPLE_MODEL, FEATURES, Cohorts, Patient
from bedside.models.export import INPUT, OUTPUT

REFUSED: Final = "refused"


class Scenario(Struct, frozen=True, kw_only=True):
    """One request and what must come of it; `runs_on` is a placement's kind or `refused`."""

    title: str
    who: str
    patient: Patient
    facts: dict[str, str]
    runs_on: str
    policy: str
    carries_row: bool = True


class Answer(Struct, frozen=True, kw_only=True):
    """What came of a request."""

    placement: str
    policies: str = ""
    citations: str = ""
    record: str = ""
    obligations: str = ""
    prediction: npt.NDArray[np.float32] | None = None
    refusal: str = ""


def scenarios(cohorts: Cohorts) -> list[Scenario]:
    """Return the requests, in the order in which they are told."""
    american, german = cohorts.hospitals["US-CA"], cohorts.hospitals["DE"]
    held = cohorts.devices[2][0]
    return [
        Scenario(
            title="A US patient's PHI",
            who="dr.adams",
            patient=american[0],
            facts={"Purpose": "TREAT"},
            runs_on="node:",
            policy="hipaa-treatment",
        ),
        Scenario(
            title="A German patient's PHI; no EU node here",
            who="dr.adams",
            patient=german[0],
            facts={"Jurisdiction": "DE", "Purpose": "TREAT"},
            runs_on=REFUSED,
            policy="gdpr-transfer",
        ),
        Scenario(
            title="A patient whose data is on a device",
            who="dr.adams",
            patient=held,
            facts={"Purpose": "TREAT"},
            runs_on="device:",
            policy="residency-on-device",
            carries_row=False,
        ),
        Scenario(
            title="De-identified German data",
            who="dr.adams",
            patient=german[1],
            facts={"Jurisdiction": "DE", "Data-Class": "deidentified", "Purpose": "TREAT"},
            runs_on="node:",
            policy="gdpr-anonymous",
        ),
        Scenario(
            title="Break-glass: a German patient in emergency",
            who="dr.adams",
            patient=german[2],
            facts={"Jurisdiction": "DE", "Purpose": "ETREAT", "Emergency": "true"},
            runs_on="node:",
            policy="gdpr-vital-interests",
        ),
        Scenario(
            title="A caller with no right to the model",
            who="b.keller",
            patient=american[1],
            facts={"Purpose": "HPAYMT"},
            runs_on=REFUSED,
            policy="base-model-roles",
        ),
    ]


def ask(address: str, token: str, scenario: Scenario, canaries: Canaries) -> Answer:
    """Send one request; its identifiers and values are remembered as canaries."""
    patient = scenario.patient
    canaries.add_text(patient.subject, patient.name)
    headers = {
        "Authorization": f"Bearer {token}",
        "Bedside-Subject": patient.subject,
        # What a careless caller may send along; nothing may keep it.
        "X-Patient-Name": patient.name,
        **{f"Bedside-{name}": value for name, value in scenario.facts.items()},
    }
    tensor = InferInput(INPUT, [1, FEATURES], "FP32")
    if scenario.carries_row:
        canaries.add_values(patient.features)
        tensor.set_data_from_numpy(patient.features.reshape(1, -1))
    with InferenceServerClient(address) as client:
        try:
            result = client.infer(
                EXAMPLE_MODEL,
                [tensor],
                outputs=[InferRequestedOutput(OUTPUT, binary_data=scenario.carries_row)],
                headers=headers,
                request_id=patient.name,
            )
        except InferenceServerException as error:
            return Answer(placement=REFUSED, refusal=error.message())
    about: dict[str, Any] = result.get_response()["parameters"]
    prediction = result.as_numpy(OUTPUT)
    canaries.add_values(prediction)
    return Answer(
        placement=about["bedside_placement"],
        policies=about["bedside_policies"],
        citations=about["bedside_citations"],
        record=about["bedside_record"],
        obligations=about.get("bedside_obligations", ""),
        prediction=prediction,
    )
