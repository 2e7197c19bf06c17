"""Hours as people give them."""

import numpy as np
import pytest

from core.data.time_span import time_span


def test_days_and_hours():
    assert time_span(None, None) == (None, None)
    assert time_span("2016-05-01", "2016-05-02") == (
        np.datetime64("2016-05-01T00:00"),
        np.datetime64("2016-05-02T23:59:59"),
    )
    assert time_span("2016-05-01T06", "2016-05-01 06:00") == (np.datetime64("2016-05-01T06"),) * 2


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("today or so", None, "start 'today or so' is no date"),
        (None, "2016-13-01", "end '2016-13-01' is no date"),
        ("NaT", None, "is no date"),
        ("2016-05-02", "2016-05-01", "The end 2016-05-01 lies before the start 2016-05-02"),
    ],
)
def test_no_dates(start, end, message):
    with pytest.raises(ValueError, match=message):
        time_span(start, end)
