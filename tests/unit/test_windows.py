"""Run windows: their text, their hours, nights, and days on which the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.windows import DAYS, EVERY_DAY, Window, parse_window

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "America/Sao_Paulo", "Australia/Lord_Howe", "UTC",
         "America/Santiago", "Africa/Cairo", "Pacific/Apia")  # fmt: skip
moments = st.datetimes(datetime(2011, 1, 1), datetime(2028, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    opens, length = draw(st.integers(0, 1439)), draw(st.integers(1, 1439))
    days = draw(st.frozensets(st.integers(0, 6), min_size=1))
    return Window(days, opens, (opens + length) % 1440 or 1440, draw(st.sampled_from(ZONES)))


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    window = parse_window("Mon-Fri 22:00-06:00 Europe/Berlin")
    saturday_morning = berlin("2026-11-28T03:00")
    assert window.opening(saturday_morning).holds(saturday_morning)
    saturday_night = berlin("2026-11-28T23:00")
    opening = window.opening(saturday_night)
    assert opening.opens_at == berlin("2026-11-30T22:00")
    assert opening.closes_at == berlin("2026-12-01T06:00")
    assert window.opens_text(saturday_night) == "at 22:00 Europe/Berlin on 2026-11-30"
    assert window.opens_text(berlin("2026-11-30T12:00")) == "at 22:00 Europe/Berlin"


@pytest.mark.parametrize(
    ("window", "day", "opens", "closes"),
    [
        # 2026-03-29, 02:00 becomes 03:00: the night is an hour shorter, and 02:30 is the moment of the jump.
        ("22:00-06:00", "2026-03-28T23:00", "2026-03-28T21:00", "2026-03-29T04:00"),
        ("02:30-05:00", "2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T03:00"),
        ("01:00-02:30", "2026-03-29T00:00", "2026-03-29T00:00", "2026-03-29T01:00"),
        ("02:10-02:50", "2026-03-29T00:00", "2026-03-30T00:10", "2026-03-30T00:50"),  # swallowed: the day after
        # 2026-10-25, 03:00 becomes 02:00: an hour longer; 02:30 comes twice.
        ("22:00-06:00", "2026-10-24T23:00", "2026-10-24T20:00", "2026-10-25T05:00"),
        ("02:30-05:00", "2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T04:00"),
        ("01:00-02:30", "2026-10-25T00:00", "2026-10-24T23:00", "2026-10-25T01:30"),
    ],
)
def test_days_on_which_the_clocks_change(window: str, day: str, opens: str, closes: str) -> None:
    opening = parse_window(f"{window} Europe/Berlin").opening(berlin(day))
    assert opening.opens_at == datetime.fromisoformat(opens).replace(tzinfo=UTC)
    assert opening.closes_at == datetime.fromisoformat(closes).replace(tzinfo=UTC)


def test_whole_days_that_touch_are_one_opening() -> None:
    window = parse_window("Sat,Sun 00:00-24:00 Europe/Berlin")
    opening = window.opening(berlin("2026-11-28T23:59"))
    assert opening.closes_at - opening.opens_at == timedelta(days=2)
    always = parse_window("00:00-24:00 UTC")
    assert always.opening(berlin("2026-11-28T23:59")).closes_at > berlin("2026-12-05T00:00")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("mon-fri  22:00-06:00   Europe/Berlin", "Mon-Fri 22:00-06:00 Europe/Berlin"),
        ("Fri-Mon,Wed 22:00-06:00 UTC", "Mon,Wed,Fri-Sun 22:00-06:00 UTC"),
        ("Mon-Sun 00:00-24:00 UTC", "00:00-24:00 UTC"),
    ],
)
def test_the_same_window_has_the_same_text(given: str, text: str) -> None:
    assert str(parse_window(given)) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("22:00-06:00", "form"), ("", "form"), ("nights Europe/Berlin", "form"), ("22-6 Europe/Berlin", "form"),
        ("22:00-06:00 Europe/Atlantis", "time zone"), ("22:00-06:00 ../../etc/passwd", "form"), ("x" * 500, "form"),
        ("22:00-25:00 UTC", "no time"), ("22:60-23:00 UTC", "no time"), ("22:00-22:00 UTC", "no length"),
        ("24:00-06:00 UTC", "no length"), ("Mon-Foo 22:00-06:00 UTC", "no days"), ("22:00-06:00 /etc/passwd", "zone"),
    ],
)  # fmt: skip
def test_what_is_no_window_is_refused_in_words(text: str, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        parse_window(text)


@given(windows())
def test_text_is_read_back(window: Window) -> None:
    assert parse_window(str(window)) == window
    assert len(str(window)) < 80


@given(windows(), moments)
def test_an_opening_is_the_same_from_wherever_it_is_asked(window: Window, now: datetime) -> None:
    opening = window.opening(now)
    assert now < opening.closes_at
    assert opening.opens_at < opening.closes_at
    asked = max(now, opening.opens_at)
    assert window.opening(asked).opens_at == opening.opens_at
    assert window.opening(opening.closes_at).opens_at > opening.closes_at  # openings that touch would be one


@given(windows(), moments)
def test_open_minutes_are_those_that_the_clock_of_the_place_shows(window: Window, now: datetime) -> None:
    """But for the minutes near a change of the clocks, every moment is judged as a look at the wall would."""
    now = now.replace(second=0, microsecond=0)
    zone = ZoneInfo(window.zone)
    local = now.astimezone(zone)
    around = {(now + timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in range(-48, 49, 3)}
    if len(around) > 1:
        return
    minute, crosses = local.hour * 60 + local.minute, window.closes_minute <= window.opens_minute
    today, yesterday = local.weekday() in window.days, (local.weekday() - 1) % 7 in window.days
    if crosses:
        expected = (today and minute >= window.opens_minute) or (yesterday and minute < window.closes_minute)
    else:
        expected = today and window.opens_minute <= minute < window.closes_minute
    assert window.opening(now).holds(now) == expected


def test_days_have_the_order_of_the_week() -> None:
    assert [datetime(2026, 11, 30 - 7 + n).strftime("%a") for n in range(7)] == list(DAYS)
    assert len(EVERY_DAY) == 7
