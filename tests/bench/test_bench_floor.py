"""The floor, by hand."""

from tombola.bench.floor import Machine


def test_operations_of_a_tiny_network() -> None:
    """Three and two survivors, batch 10: forward and gradient 2 x 2 x 10 x 3, for the second layer 3 x 2 x 10 x 2."""
    machine = Machine(peak=1.0, bandwidth=1e9)
    assert machine.iteration([3, 2], 10, 4) == 120 + 120


def test_bytes_of_a_tiny_network() -> None:
    """Seven passes over five float32, and a batch of 10 examples of 4 float32."""
    machine = Machine(peak=1e9, bandwidth=1.0)
    assert machine.iteration([3, 2], 10, 4) == 4 * 7 * 5 + 4 * 10 * 4


def test_an_evaluation_is_one_forward_pass() -> None:
    assert Machine(peak=1.0, bandwidth=1e9).evaluation([3, 2], 6, 4) == 2 * 6 * 5
    assert Machine(peak=1e9, bandwidth=1.0).evaluation([3, 2], 6, 4) == 4 * 6 * 4


def test_units() -> None:
    assert Machine(1.15e11, 8.5e10).as_json() == {"peak_gflops": 115.0, "copy_gigabytes_a_second": 85.0}
