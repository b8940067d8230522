"""One alone, or many together, and nobody for ever in between."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from workers.turnstile import Turnstile


def test_nobody_is_inside_beside_one_that_is_alone() -> None:
    turnstile, lock = Turnstile(), threading.Lock()
    inside, alone, seen = 0, 0, []

    def enter(number: int) -> None:
        nonlocal inside, alone
        is_alone = number % 3 == 0
        with turnstile.alone() if is_alone else turnstile.together():
            with lock:
                inside, alone = inside + 1, alone + is_alone
                seen.append((inside, alone))
            with lock:
                inside, alone = inside - 1, alone - is_alone

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(300)))
    assert len(seen) == 300
    assert all(count == 1 for count, lonely in seen if lonely)


def test_one_who_wants_to_be_alone_is_not_overtaken_for_ever() -> None:
    turnstile, order = Turnstile(), []
    first_inside, waiting = threading.Event(), threading.Event()

    def alone() -> None:
        waiting.set()
        with turnstile.alone():
            order.append("alone")

    def late() -> None:
        with turnstile.together():
            order.append("late")

    with turnstile.together():
        first_inside.set()
        lonely = threading.Thread(target=alone)
        lonely.start()
        assert waiting.wait(5)
        while not turnstile._waiting_alone:
            pass
        latecomer = threading.Thread(target=late)
        latecomer.start()
        latecomer.join(0.1)
        assert latecomer.is_alive()
    lonely.join(5)
    latecomer.join(5)
    assert order == ["alone", "late"]
