"""Where in the store, beside its uploads, a team's images may lie: folders that an operator opened, and nothing else.

An operator names them in JANUS_INPUT_BUCKETS: `bucket/folder/` for every team, `team_…=bucket/folder/` for one. What is
asked for is compared with them as text, after every way of writing one path as another was refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.domain.errors import JanusError
from orchestrator.domain.names import is_safe_name

SCHEME = "s3://"
PRIVATE_FOLDERS = ("files/", "jobs/", "uploads/")  # of the product's own bucket: all teams' objects
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)*")
_TEAM_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


class PlaceRefused(JanusError):
    """The team may not read there, or it is written in a way that nobody may."""


class PlacesWrong(JanusError):
    """An operator's list cannot be taken as it is."""


@dataclass(frozen=True)
class Place:
    """A folder of a bucket: empty for all of it, else ending in `/`. Without a team, every team may read it."""

    bucket: str
    folder: str
    team_id: str | None = None


class InputPlaces:
    """The folders that are open.

    Args:
        places: as operators write them.
        own_bucket: the product's, of which no folder may be opened that holds teams' objects.
    Raises PlacesWrong.
    """

    def __init__(self, places: Iterable[str], *, own_bucket: str) -> None:
        self._own_bucket = own_bucket
        self._places = [self._parse(text) for text in places]

    def locate(self, url: str, team_id: str) -> tuple[str, str]:
        """Bucket and key, or bucket and the beginning of keys, of `s3://bucket/key`. Raises PlaceRefused."""
        bucket, _, key = url.removeprefix(SCHEME).partition("/")
        if not url.startswith(SCHEME) or not _is_bucket(bucket):
            raise PlaceRefused(f"{url[:200]!r} is not of the form s3://bucket/key")
        if key and not is_safe_name(key.removesuffix("/")):
            raise PlaceRefused(f"{url[:200]!r} holds `..`, an empty step or a character that no name of ours has")
        if not self.covers(bucket, key, team_id):
            raise PlaceRefused(
                f"{url[:200]} is not open to your team on this server; an operator opens folders with "
                "JANUS_INPUT_BUCKETS, and a folder ends in `/`"
            )
        return bucket, key

    def covers(self, bucket: str, key: str, team_id: str) -> bool:
        """Whether the team may read what begins with this key."""
        if bucket == self._own_bucket and _is_private(key):
            return False
        return any(
            place.bucket == bucket and key.startswith(place.folder) and place.team_id in (None, team_id)
            for place in self._places
        )

    def _parse(self, text: str) -> Place:
        team_id, is_of_team, where = text.rpartition("=")
        bucket, _, folder = where.removeprefix(SCHEME).partition("/")
        folder = folder.removesuffix("/") + "/" if folder else ""
        is_written_well = _is_bucket(bucket) and (not folder or is_safe_name(folder[:-1]))
        if not is_written_well or (is_of_team and not _TEAM_ID.fullmatch(team_id)):
            raise PlacesWrong(f"{text!r} is not `bucket/folder/` or `team_…=bucket/folder/`")
        if bucket == self._own_bucket and (not folder or _is_private(folder)):
            raise PlacesWrong(f"{text!r} would open what teams sent and made; name another folder of {bucket}")
        return Place(bucket, folder, team_id if is_of_team else None)


def _is_bucket(name: str) -> bool:
    return 3 <= len(name) <= 63 and _BUCKET.fullmatch(name) is not None


def _is_private(key: str) -> bool:
    """Whether it lies in a private folder, or is the beginning of one's name; some stores know no large letters."""
    key = key.casefold()
    return any(key.startswith(folder) or folder.startswith(key) for folder in PRIVATE_FOLDERS)
