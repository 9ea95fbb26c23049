"""What policy obliges a device to, and that it runs nothing under an obligation it does not know."""

import numpy as np
import pytest

from bedside_client import ModelFailed, Refused
from bedside_client.obligations import LocalObligations

OUTPUTS = {"risk": np.array([0.12345], np.float32), "rank": np.array([7], np.int64)}


def held(*obligations):
    return LocalObligations.of(obligations, ("p",), ("c",))


def test_outputs_and_digits_are_held_to_what_is_allowed():
    assert held("review", "no_cache").apply(OUTPUTS) == OUTPUTS
    assert list(held("outputs(risk,other)", "outputs(risk)").apply(OUTPUTS)) == ["risk"]
    rounded = held("round(3)", "round(1)").apply(OUTPUTS)
    assert rounded["risk"] == np.float32(0.1)
    assert rounded["rank"] == 7
    with pytest.raises(ModelFailed):
        held("outputs(other)").apply(OUTPUTS)


@pytest.mark.parametrize(
    "obligation", ["two_person_review", "of_a_later_version(1)", "round(x)", "Odd"]
)
def test_what_a_device_cannot_do_refuses_the_run(obligation):
    with pytest.raises(Refused) as caught:
        held("review", obligation)
    assert caught.value.policies == ("p",)
