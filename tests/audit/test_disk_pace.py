"""Seen to fail: without the cap on one write, without `STALLED_S`, and with a mean on a thread."""

from hypothesis import given
from hypothesis import strategies as st

from audit.disk_pace import INLINE_AGAIN_S, INLINE_BELOW_S, STALLED_S, DiskPace

QUICK_S = 120e-6


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def pace_of(*writes):
    clock = Clock()
    pace = DiskPace(clock)
    for took_s in writes:
        pace.wrote(took_s)
    return pace, clock


def test_a_disk_is_waited_for_on_the_loop_until_it_turns_out_to_be_slow():
    assert pace_of()[0].quick
    assert pace_of(*[QUICK_S] * 50)[0].quick
    assert not pace_of(*[2 * INLINE_BELOW_S] * 50)[0].quick


def test_a_large_batch_may_take_longer_than_a_lone_record():
    for records, quick in ((500, True), (100, False), (1, False)):
        pace, _ = pace_of()
        for _ in range(50):
            pace.wrote(1.3e-3, records)
        assert pace.quick is quick


def test_one_slow_write_among_quick_ones_counts_little_and_two_in_a_row_do_not():
    usual = [QUICK_S] * 50
    assert pace_of(*usual, 8e-3)[0].quick
    assert not pace_of(*usual, 8e-3, 8e-3)[0].quick


def test_one_write_that_stalls_or_fails_is_enough():
    usual = [QUICK_S] * 50
    assert not pace_of(*usual, STALLED_S)[0].quick
    pace, _ = pace_of(*usual)
    pace.failed()
    assert not pace.quick


def test_it_goes_back_after_a_while_in_which_a_write_on_the_thread_was_quick():
    pace, clock = pace_of(STALLED_S)
    pace.wrote(QUICK_S)
    assert not pace.quick
    clock.now += INLINE_AGAIN_S
    assert pace.quick
    # From there it starts with what that write took.
    pace.wrote(8e-3)
    assert pace.quick


def test_a_disk_that_stays_slow_is_never_waited_for_on_the_loop_again():
    pace, clock = pace_of(STALLED_S)
    for _ in range(100):
        clock.now += INLINE_AGAIN_S
        assert not pace.quick
        pace.wrote(INLINE_BELOW_S)


@given(st.lists(st.sampled_from([QUICK_S, INLINE_BELOW_S, 2e-3, 9e-3, STALLED_S, 1.0]), max_size=200))
def test_the_loop_waits_for_three_slow_writes_in_a_row_at_the_most(times):
    pace, clock = pace_of()
    in_a_row = 0
    for took_s in times:
        slow = took_s >= 4 * INLINE_BELOW_S
        in_a_row = in_a_row + 1 if slow and pace.quick else 0
        assert in_a_row <= 3
        pace.wrote(took_s)
        clock.now += took_s
