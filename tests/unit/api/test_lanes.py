"""A lane holds as many as it says, however they arrive."""

from __future__ import annotations

import asyncio
import threading

import pytest

from perennial.api.lanes import Busy, Lane


@pytest.mark.req("J111")
def test_of_a_burst_in_one_moment_only_the_places_are_filled() -> None:
    free = threading.Event()

    async def burst() -> list[object]:
        lane = Lane(threads=1, waiting=2)
        asked = [asyncio.ensure_future(lane.run(free.wait)) for _ in range(10)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION, timeout=5)
        free.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(burst())
    assert answers[:3] == [True, True, True]
    assert [type(one) for one in answers[3:]] == [Busy] * 7


def test_a_failed_or_abandoned_request_gives_its_place_back() -> None:
    def fails() -> None:
        raise ValueError

    async def again() -> int:
        lane = Lane(threads=1, waiting=0)
        for _ in range(5):
            with pytest.raises(ValueError):
                await lane.run(fails)
        held = threading.Event()
        left = asyncio.ensure_future(lane.run(held.wait))
        await asyncio.sleep(0.05)
        left.cancel()
        held.set()
        with pytest.raises(asyncio.CancelledError):
            await left
        return await lane.run(lambda: 7)

    assert asyncio.run(again()) == 7
