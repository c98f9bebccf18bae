"""The reading of queries that the other tests rest on."""

from __future__ import annotations

from tests.seeing.promql import Selector, names


def test_metrics_matchers_and_groupings_are_found() -> None:
    found = names(
        'sum by (job, le) (rate(a_bucket{x="1, 2",job=~"$job"}[5m])) / on (k) group_left () b:c:d > 0.5 or vector(0)'
    )
    assert found.selectors == [Selector("a_bucket", [("x", "=", "1, 2"), ("job", "=~", "$job")]), Selector("b:c:d")]
    assert found.grouped == {"job", "le", "k"}


def test_functions_words_windows_and_numbers_are_no_metrics() -> None:
    found = names("histogram_quantile(0.95, m[$__rate_interval]) and 1e3 * up offset 5m unless x")
    assert [selector.metric for selector in found.selectors] == ["m", "up", "x"]
