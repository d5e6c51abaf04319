"""Truth: the batches that the dataset itself gives."""

import threading
import time

import numpy as np
import pytest

from jaxdiff import data


def numbered(n=50):
    x = np.linspace(-1, 1, n, dtype=np.float32)[:, None]
    return data.from_arrays(x, np.arange(n)).with_batches(8, seed=3)


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
@pytest.mark.parametrize("workers", [None, 1, 3])
@pytest.mark.parametrize("steps", [range(20), [7, 3, 3, 100, 0, 101, 1, 2, 5, 4]])
def test_batches_are_bit_equal_in_any_order(ahead, workers, steps):
    plain = numbered()
    with data.prefetch(plain, ahead, workers=workers) as batches:
        for step in steps:
            got, wanted = batches.batch_at(step), plain.batch_at(step)
            assert got["x"].tobytes() == wanted["x"].tobytes()
            np.testing.assert_array_equal(got["y"], wanted["y"])
    assert not threads()


class Recorder:
    """Batches that are their step, and what was asked for; `bad` steps raise."""

    def __init__(self, bad=(), wait=0.0):
        self.asked, self.bad, self.wait = [], bad, wait

    def batch_at(self, step):
        self.asked.append(step)
        time.sleep(self.wait)
        if step in self.bad:
            raise ValueError(f"step {step} cannot be read")
        return step


def settled(recorder, asked):
    """Whether exactly these steps are asked for before long."""
    for _ in range(500):
        if sorted(recorder.asked) == sorted(asked):
            return True
        time.sleep(0.01)
    return False


def test_next_steps_are_under_way_and_each_is_made_once():
    recorder = Recorder()
    with data.prefetch(recorder, 2) as batches:
        assert batches.batch_at(10) == 10
        assert settled(recorder, [10, 11, 12])
        assert batches.batch_at(11) == 11
        assert settled(recorder, [10, 11, 12, 13])


def test_an_exception_is_raised_at_its_own_step():
    with data.prefetch(Recorder(bad={3}), 3) as batches:
        assert [batches.batch_at(step) for step in range(3)] == [0, 1, 2]
        for _ in range(2):  # asked for again, it is tried again
            with pytest.raises(ValueError, match="step 3 cannot be read"):
                batches.batch_at(3)
        assert batches.batch_at(4) == 4
    assert not threads()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_threads_end_with_the_block_whatever_ends_it(error):
    recorder = Recorder(wait=0.02)

    def interrupted():
        with data.prefetch(recorder, 8, workers=1) as batches:
            batches.batch_at(0)
            raise error

    with pytest.raises(error):
        interrupted()
    assert not threads()
    assert len(recorder.asked) < 9  # what had not begun was dropped


def test_bad_arguments():
    for options, says in [({"ahead": -1}, "ahead"), ({"workers": 0}, "workers")]:
        with pytest.raises(ValueError, match=f"{says} must be >= "), data.prefetch(1, **options):
            pass
