"""The nouns."""

from __future__ import annotations

from gateway.call import BUCKETS, COUNT_BUCKETS, TOKEN_BUCKETS, Usage


def test_buckets_are_disjoint_and_in_their_fixed_order() -> None:
    assert BUCKETS == TOKEN_BUCKETS + COUNT_BUCKETS
    assert len(set(BUCKETS)) == len(BUCKETS)
    assert [bucket.partition("_")[0] for bucket in TOKEN_BUCKETS] == ["input"] * 6 + ["output"] * 3


def test_every_token_bucket_counts_as_input_or_output_and_no_count_does() -> None:
    usage = Usage({bucket: 10**place for place, bucket in enumerate(BUCKETS)})
    assert usage.input_tokens == 111_111
    assert usage.output_tokens == 111_000_000


def test_no_usage_is_zero_tokens() -> None:
    assert (Usage({}).input_tokens, Usage({}).output_tokens) == (0, 0)
