import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score

from bedside_client.federated_counts import count, nothing
from coordinator.errors import JobError
from coordinator.federated.statistics import BINS, ROWS_MAX, add, check, length, metrics


def cohort(seed: int, devices: int, spread: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores and labels of each device; `spread` is how confident the model is, in log-odds."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(devices):
        y = rng.integers(0, 2, rng.integers(1, 200))
        odds = rng.normal((2 * y - 1) * spread / 2, spread / 1.5)
        rows.append(((1 / (1 + np.exp(-odds))).astype(np.float32), y))
    return rows


@given(
    seed=st.integers(0, 2**32 - 1),
    devices=st.integers(2, 12),
    spread=st.floats(0.5, 8),
    threshold=st.floats(0.05, 0.95),
)
def test_sums_give_the_pooled_metrics(seed, devices, spread, threshold):
    rows = cohort(seed, devices, spread)
    total = add(check(count(s, y.tolist(), threshold, BINS)) for s, y in rows)
    result = metrics(total)
    scores, labels = (np.concatenate(part) for part in zip(*rows, strict=True))
    tn, fp, fn, tp = confusion_matrix(labels, scores >= threshold, labels=[0, 1]).ravel()
    assert (result.rows, result.positives, result.negatives) == (len(labels), tp + fn, tn + fp)
    assert result.accuracy == pytest.approx((tp + tn) / len(labels), abs=1e-9)
    for value, part, whole in (
        (result.sensitivity, tp, tp + fn),
        (result.specificity, tn, tn + fp),
        (result.ppv, tp, tp + fp),
        (result.npv, tn, tn + fn),
    ):
        assert value == (pytest.approx(part / whole, abs=1e-9) if whole else None)
    assert result.brier == pytest.approx(brier_score_loss(labels, scores), abs=1e-6)
    if tp + fn and tn + fp:
        # A pair of one of each class that shares a bin counts half whatever its order is.
        shared = int((total[6 : 6 + BINS] * total[6 + BINS :]).sum())
        within = 0.5 * shared / (tp + fn) / (tn + fp) + 1e-9
        assert result.auroc == pytest.approx(roc_auc_score(labels, scores), abs=within)
    else:
        assert result.auroc is None


@pytest.mark.parametrize("spread", [1, 3, 6, 10])
def test_auroc_of_large_cohorts_is_within_0_002_however_confident_the_model(spread):
    rows = cohort(7, 100, spread)
    scores, labels = (np.concatenate(part) for part in zip(*rows, strict=True))
    total = add(count(s, y.tolist(), 0.5, BINS) for s, y in rows)
    assert metrics(total).auroc == pytest.approx(roc_auc_score(labels, scores), abs=0.002)


def test_the_order_of_devices_and_empty_devices_change_nothing():
    vectors = [count(s, y.tolist(), 0.5, BINS) for s, y in cohort(1, 5, 2)]
    assert (add(vectors) == add([*reversed(vectors), nothing(BINS)])).all()


def test_ties_count_half():
    scores = np.full(10, 0.5, dtype=np.float32)
    assert metrics(count(scores, [0, 1] * 5, 0.5, BINS)).auroc == 0.5


def test_the_largest_possible_cohort_does_not_overflow():
    vector = np.zeros(length(), dtype=np.int64)
    vector[[0, 1, 3]] = ROWS_MAX, ROWS_MAX // 2, ROWS_MAX // 2
    vector[6 + BINS - 1] = vector[6 + BINS] = ROWS_MAX // 2
    result = metrics(add([check(vector)] * 10_000))
    assert (result.accuracy, result.auroc) == (1.0, 1.0)


def test_a_cohort_without_rows_has_no_metrics():
    with pytest.raises(JobError, match="no rows"):
        metrics(nothing(BINS))


def valid() -> np.ndarray:
    return count(np.array([0.1, 0.9, 0.8], np.float32), [0, 1, 0], 0.5, BINS)


def damaged(place: int, value: int) -> np.ndarray:
    vector = valid()
    vector[place] = value
    return vector


@pytest.mark.parametrize(
    "vector",
    [
        valid()[:-1],
        valid().astype(np.float64),
        valid().astype(np.int32),
        valid().reshape(1, -1),
        np.where(valid() == 0, -1, valid()),
        damaged(0, 4),
        damaged(1, 2),
        damaged(5, 4 << 20),
        damaged(5, -1),
        damaged(7, 1),
        damaged(0, ROWS_MAX + 1),
        damaged(0, 2**63 - 1),
        damaged(6, 2**62),
    ],
)
def test_a_reply_that_no_device_can_have_is_refused(vector):
    with pytest.raises(JobError, match="a reply"):
        check(vector)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=length(4), max_size=length(4)))
def test_any_vector_is_either_refused_or_consistent(values):
    vector = np.array(values, dtype=np.int64)
    try:
        checked = check(vector, 4)
    except JobError:
        return
    assert checked[0] == checked[1:5].sum() == checked[6:].sum() <= ROWS_MAX
