"""Pictures on their way in: names that the store takes, for files that may be called anything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.names import IMAGE_SUFFIXES, is_safe_name

_ODD = re.compile(r"[\\\x00-\x1f\x7f]")
MAX_NAME_LENGTH = 150


def names_of(files: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """A name below an upload for each file, all different: a browser's file names may be anything.

    Raises InvalidRequest for what does not end like a picture.
    """
    used, names = set(taken), list[str]()
    for file in files:
        path = PurePosixPath(_ODD.sub("_", file.replace("\\", "/")))
        suffix, stem = path.suffix.lower(), path.stem[:MAX_NAME_LENGTH].strip(" .") or "picture"
        if suffix not in IMAGE_SUFFIXES:
            accepted = ", ".join(IMAGE_SUFFIXES)
            raise InvalidRequest(f"{path.name[:100]!r} does not end like a picture; there are {accepted}")
        name, number = stem + suffix, 2
        while name in used or not is_safe_name(name):
            stem = stem if is_safe_name(stem + suffix) else "picture"
            name, number = f"{stem}-{number}{suffix}", number + 1
        used.add(name)
        names.append(name)
    return names
