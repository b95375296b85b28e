"""Statistics against values from printed tables and worked by hand."""

import pytest

from moco_det.report.statistics import paired_difference, summarize


@pytest.mark.parametrize(
    ("degrees", "printed"),
    [(2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_the_quantile_is_that_of_the_tables(degrees, printed):
    """The half width in standard errors, of degrees + 1 pairs."""
    values = dict(enumerate(range(degrees + 1)))
    interval = paired_difference(values, dict.fromkeys(values, 0))
    error = summarize(values).std / (degrees + 1) ** 0.5
    assert (interval.high - interval.mean) / error == pytest.approx(printed, abs=5e-4)


def test_mean_and_sample_deviation_by_hand():
    summary = summarize([2, 4, 9])  # mean 5; squares 9 + 1 + 16 = 26; 26 / 2 = 13
    assert (summary.n, summary.mean) == (3, 5)
    assert summary.std == pytest.approx(13**0.5)
    assert str(summary) == "5.0 ± 3.6"


def test_one_value_shows_no_deviation():
    assert str(summarize([7.25])) == "7.2"
    assert summarize([7.25]).std is None
    assert summarize([]) is None


def test_paired_difference_by_hand():
    # differences 1, 2, 3 of seeds 0, 1, 2: mean 2, deviation 1, half width 4.303 / sqrt(3) = 2.484
    interval = paired_difference({0: 11, 1: 22, 2: 33, 9: 1000}, {2: 30, 1: 20, 0: 10, 8: -1000})
    assert (interval.n, interval.mean) == (3, 2)
    assert interval.low == pytest.approx(2 - 2.484, abs=1e-3)
    assert interval.high == pytest.approx(2 + 2.484, abs=1e-3)
    assert str(interval) == "+2.0 [-0.5, +4.5]"


def test_pairing_takes_out_what_seeds_share():
    a, b = {0: 0.0, 1: 50.0, 2: 100.0}, {0: 1.0, 1: 51.0, 2: 101.0}
    interval = paired_difference(b, a)
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_two_shared_seeds_are_not_tested():
    assert paired_difference({0: 1, 1: 2, 5: 3}, {0: 1, 1: 2, 6: 3}) is None
