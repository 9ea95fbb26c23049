import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bedside_client.federated_counts import count
from coordinator.errors import JobError
from coordinator.federated.statistics import BINS, add, check, length, metrics

cohorts = st.lists(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 1)), max_size=30),
    min_size=1,
    max_size=6,
)


@given(cohorts)
def test_sums_over_devices_equal_the_pooled_figures(devices):
    vectors = [
        check(count(np.array([s for s, _ in rows], np.float32), [y for _, y in rows], 0.5, BINS))
        for rows in devices
    ]
    pooled = [row for rows in devices for row in rows]
    total = add(vectors)
    if not pooled:
        with pytest.raises(JobError):
            metrics(total)
        return
    scores = np.array([s for s, _ in pooled], np.float32)
    truth = np.array([y for _, y in pooled])
    said = scores >= 0.5
    result = metrics(total)
    assert result.rows == len(pooled)
    assert result.accuracy == pytest.approx((said == truth).mean(), abs=1e-9)
    if truth.any():
        assert result.sensitivity == pytest.approx(said[truth == 1].mean(), abs=1e-9)
    else:
        assert result.sensitivity is None
    if not truth.all():
        assert result.specificity == pytest.approx((~said[truth == 0]).mean(), abs=1e-9)


def test_auroc_from_histograms_is_within_two_thousandths():
    rng = np.random.default_rng(1)
    for spread in (0.5, 2.0, 6.0):
        truth = rng.integers(0, 2, 4000)
        scores = 1 / (1 + np.exp(-(rng.normal(size=4000) + truth) * spread))
        result = metrics(count(scores, truth, 0.5, BINS))
        assert result.auroc == pytest.approx(roc_auc_score(truth, scores), abs=0.002)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(length() - 1, np.int64),
        np.zeros(length(), np.float64),
        np.zeros((1, length()), np.int64),
        np.full(length(), -1, np.int64),
        np.full(length(), 1, np.int64),
        np.full(length(), 2**62, np.int64),
    ],
)
def test_impossible_replies_are_refused(vector):
    with pytest.raises(JobError):
        check(vector)
