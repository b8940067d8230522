"""A worker's stopwatch: what is held at the same time counts once, and what was taken is not taken again."""

from __future__ import annotations

from workers.stopwatch import Stopwatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_shards_that_are_held_together_count_once() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    with watch.hold(("m", "caption")):
        clock.now = 4
        with watch.hold(("m", "caption")), watch.hold(("m", "generate")):
            clock.now = 10
            assert watch.take(("m", "caption")) == 10
        clock.now = 11
    clock.now = 100
    assert (watch.take(("m", "caption")), watch.take(("m", "generate"))) == (1, 6)
    assert watch.take(("m", "caption")) == watch.take(("never", "held")) == 0
    with watch.hold(("m", "caption")):
        clock.now = 103
    assert watch.take(("m", "caption")) == 3
