"""Guessing the admin key: ten tries a minute from one address, in the same words each time, whoever else is served."""

from __future__ import annotations

from collections import Counter

from tests.conftest import ADMIN_KEY, KEY, World

GUESSES = 200


async def test_two_hundred_guesses_are_ten(world: World) -> None:
    statuses: Counter[int] = Counter()
    words = set()
    for number in range(GUESSES):
        headers = {"authorization": f"Bearer {ADMIN_KEY[:-1]}{number}"}
        async with world.http.get(f"{world.url}/admin/v1/tenants", headers=headers) as answer:
            statuses[answer.status] += 1
            if answer.status == 401:
                words.add(await answer.text())
            else:
                assert answer.status == 429
                assert int(answer.headers["retry-after"]) >= 1
    assert statuses[401] <= 11  # ten, and one more when the minute moves on
    assert len(words) == 1
    assert (await world.chat())[0] == 200


async def test_the_right_key_is_heard_after_wrong_ones(world: World) -> None:
    """An operator must not be locked out by whoever shares the address of a proxy with him."""
    for number in range(20):
        async with world.http.get(f"{world.url}/admin/v1/tenants", headers={"x-api-key": str(number)}) as answer:
            assert answer.status in (401, 429)
    async with world.http.get(
        f"{world.url}/admin/v1/tenants", headers={"authorization": f"Bearer {ADMIN_KEY}"}
    ) as answer:
        assert answer.status == 200


async def test_a_tenants_key_opens_nothing(world: World) -> None:
    async with world.http.get(f"{world.url}/admin/v1/tenants", headers={"authorization": f"Bearer {KEY}"}) as answer:
        assert answer.status == 401
