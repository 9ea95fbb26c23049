import numpy as np
import pytest
from sklearn.metrics import roc_auc_score


async def test_four_devices_give_the_pooled_metrics(
    start_coordinator, enrol_device, start_supernode, classifier
):
    coordinator = await start_coordinator(cohort_minimum=4, job_timeout_s=60)
    patients = classifier[1]
    for index in range(4):
        state = await enrol_device(coordinator, f"device-{index}", slice(index, None, 4))
        await start_supernode(state)
    job = await coordinator.job({"model": "breast-cancer"})
    assert job["state"] == "done", job["reason"]
    said = patients.scores >= 0.4
    result = job["result"]
    assert result["rows"] == len(patients.y)
    assert result["accuracy"] == pytest.approx(np.mean(said == (patients.y == 1)), abs=1e-9)
    assert result["auroc"] == pytest.approx(roc_auc_score(patients.y, patients.scores), abs=2e-3)
