"""Numbers of bytes as people write them: `500 GB`, `1.5 TiB`, `1048576`."""

from __future__ import annotations

import re

from orchestrator.domain.errors import InvalidRequest

_FORM = re.compile(r"(\d{1,18}(?:\.\d{1,6})?) ?(?:([KMGTP])(I?))?B?", re.IGNORECASE)
_POWERS = " KMGTP"
_HELP = "write it as 500GB, 1.5TiB or 1048576"


def parse_size(text: str) -> int:
    """Bytes; K, M, G, T and P are powers of 1000, and of 1024 with an i behind them. Raises InvalidRequest."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(f"{text[:40]!r} is no number of bytes; {_HELP}")
    number, letter, is_binary = found.groups()
    factor: int = pow(1024 if is_binary else 1000, _POWERS.index((letter or " ").upper()))
    whole, _, fraction = number.partition(".")
    return int(int(whole + fraction) * factor // 10 ** len(fraction))


def format_size(num_bytes: int) -> str:
    """With three digits: 999 B, 1.50 kB, 15.0 GB. Rounded, so for people only."""
    value, power = float(num_bytes), 0
    while value >= 999.5 and power < len(_POWERS) - 1:
        value, power = value / 1000, power + 1
    if power == 0:
        return f"{num_bytes} B"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {_POWERS[power].replace('K', 'k')}B"
