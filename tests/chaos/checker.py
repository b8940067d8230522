"""Reads Postgres and the store after a storm, and believes nothing else.

Its SQL and its reading of objects are its own: it imports nothing of the system that it judges.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
from minio import Minio
from minio.error import S3Error
from PIL import Image
from psycopg.rows import dict_row

from tests.chaos.answers import caption_of, colour_of
from tests.chaos.work import Expected, Work

ENDED = ("completed", "cancelled", "expired", "failed")
Row = dict[str, Any]


@dataclass
class Findings:
    """lost: items without an outcome, or whose outcome is not what the rows say; twice: items with two; stuck: jobs
    that have not ended; wrong: a sentence for everything that was found.
    """

    items: int = 0
    lost: int = 0
    twice: int = 0
    stuck: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.lost or self.twice or self.stuck or self.wrong)


class Checker:
    """Args: `store` reads the bucket itself, not through the proxy."""

    def __init__(self, database_url: str, store: Minio, bucket: str) -> None:
        self._database_url = database_url
        self._store = store
        self._bucket = bucket

    def check(self, works: Iterable[Work]) -> Findings:
        """Every job of a storm that has ended, or should have."""
        found = Findings()
        with psycopg.connect(self._database_url, row_factory=dict_row) as connection:
            for work in works:
                _JobCheck(self, connection, work, found).run()
        return found

    def recovery_seconds(self, works: Sequence[Work], ended_at: Any, held: Sequence[int]) -> float | None:
        """From the end of a fault until all shards that it struck were finished; until the next one was, where it
        struck none or everything. None where nothing was left to be finished.
        """
        ids = [work.job_id for work in works]
        with psycopg.connect(self._database_url) as connection:
            if held:
                query = "SELECT max(finished_at) FROM shards WHERE id = ANY(%s)"
                row = connection.execute(query, [list(held)]).fetchone()
            else:
                query = "SELECT min(finished_at) FROM shards WHERE job_id = ANY(%s) AND finished_at > %s"
                row = connection.execute(query, [ids, ended_at]).fetchone()
        if row is None or row[0] is None:
            return None
        return max(0.0, (row[0] - ended_at).total_seconds())

    def get(self, key: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        try:
            response = self._store.get_object(self._bucket, key)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject"):
                return None
            raise
        try:
            return bytes(response.read())
        finally:
            response.close()
            response.release_conn()


class _JobCheck:
    """One job: rows, parts, merged files and images, item by item."""

    def __init__(self, checker: Checker, connection: psycopg.Connection[Row], work: Work, found: Findings) -> None:
        self._get = checker.get
        self._connection = connection
        self._work = work
        self._found = found
        self._total = len(work.items)

    def run(self) -> None:
        self._found.items += self._total
        (job,) = self._rows("SELECT * FROM jobs WHERE id = %s")
        shards = self._rows("SELECT * FROM shards WHERE job_id = %s ORDER BY first_index")
        covered = self._check_shards(shards)
        if job["state"] not in ENDED or any(shard["state"] not in ("done", "cancelled") for shard in shards):
            self._found.stuck += 1
            states = dict(Counter(shard["state"] for shard in shards))
            self._say(f"is {job['state']} ({job['state_reason']}), its shards are {states}")
            return
        allowed = self._allowed_states(job)
        if job["state"] not in allowed:
            self._say(f"ended {job['state']}, not {' or '.join(allowed)}: {job['state_reason']}")
        lines = self._check_merged(job, shards, covered)
        self._check_items(lines)
        self._check_images(lines)

    def _allowed_states(self, job: Row) -> tuple[str, ...]:
        """What was not finished, or not even read, when the deadline passed makes a job expired; nothing else does."""
        if self._work.has_deadline and (job["num_cancelled"] or not job["num_items"]):
            asked_at, deadline_at = job["cancel_requested_at"], job["deadline_at"]
            return ("expired",) if asked_at and asked_at >= deadline_at else ()
        return ("completed", "cancelled") if self._work.may_be_cancelled else ("completed",)

    # --- Rows and parts -------------------------------------------------------------------------------------------

    def _check_shards(self, shards: list[Row]) -> Counter[int]:
        """How often each index stands in a part that a row names."""
        covered: Counter[int] = Counter()
        next_index = 0
        for shard in shards:
            if shard["first_index"] != next_index:
                self._say(f"shard {shard['id']} begins at {shard['first_index']}, not at {next_index}")
            next_index = shard["first_index"] + shard["num_items"]
            mine: Counter[int] = Counter()
            for part in shard["parts"]:
                mine.update(self._check_part(shard, part))
            counted = shard["num_results"] + shard["num_failures"]
            if sum(mine.values()) != counted:
                self._say(f"shard {shard['id']} counts {counted} items, its parts name {sum(mine.values())}")
            covered += mine
        if shards and next_index != self._total:
            self._say(f"its shards hold {next_index} items, not {self._total}")
        twice = sorted(index for index, times in covered.items() if times > 1)
        if twice:
            self._found.twice += len(twice)
            self._say(f"items stand in two parts: {twice[:10]}")
        return covered

    def _check_part(self, shard: Row, part: Row) -> set[int]:
        """The indexes that the row says this part holds; it must hold them, with these bytes."""
        named = {"results": set(_indexes(part["results"])), "failures": set(_indexes(part["failures"]))}
        every = named["results"] | named["failures"]
        data = self._get(part["key"])
        if data is None or hashlib.sha256(data).hexdigest() != part["sha256"] or len(data) != part["num_bytes"]:
            self._found.lost += len(every)
            self._say(f"part {part['key']} of shard {shard['id']} is missing or has other bytes than its row says")
            return every
        held = {"results": set[int](), "failures": set[int]()}
        for line in _lines(data):
            held["failures" if "failure" in line else "results"].add(line["index"])
        absent = (named["results"] - held["results"]) | (named["failures"] - held["failures"])
        if absent:
            self._found.lost += len(absent)
            self._say(f"part {part['key']} does not hold {sorted(absent)[:10]}, as its row says")
        end = shard["first_index"] + shard["num_items"]
        if any(not shard["first_index"] <= index < end for index in every):
            self._say(f"part {part['key']} names items that are not of shard {shard['id']}")
        return every

    # --- What the job ended with ----------------------------------------------------------------------------------

    def _check_merged(self, job: Row, shards: list[Row], covered: Counter[int]) -> list[Row]:
        """results.jsonl's lines; manifest, counters and digests must agree with them and with the rows."""
        prefix = f"jobs/{self._work.job_id}/"
        data, results, failures = (
            self._get(prefix + name) for name in ("manifest.json", "results.jsonl", "failures.jsonl")
        )
        if data is None or results is None or failures is None:
            self._found.lost += self._total
            self._say("has no manifest, results or failures in the store")
            return []
        manifest = json.loads(data)
        lines, failed = list(_lines(results)), list(_lines(failures))
        cancelled = sum(
            s["num_items"] - s["num_results"] - s["num_failures"] for s in shards if s["state"] == "cancelled"
        )
        if not shards:  # it was cancelled before its input was read
            cancelled = job["num_items"]
        recount = {
            "total": job["num_items"],
            "results": sum("failure" not in line for line in lines),
            "failures": sum("failure" in line for line in lines),
            "cancelled": cancelled,
            "reused": sum(shard["num_reused"] for shard in shards),
        }
        digests = {
            name: _described(value) for name, value in (("results.jsonl", results), ("failures.jsonl", failures))
        }
        row = {name: job[f"num_{'items' if name == 'total' else name}"] for name in recount}
        parts = [part for shard in shards for part in shard["parts"]]
        rows = self._rows("SELECT index, item_id, code FROM failures WHERE job_id = %s ORDER BY index")
        said = [(line["index"], line["id"], line["failure"]["code"]) for line in failed]
        self._agree("the manifest's digest and the job's row", hashlib.sha256(data).hexdigest(), job["manifest_sha256"])
        self._agree("results.jsonl and the manifest's counts", recount, manifest["items"])
        self._agree("results.jsonl and the job's counters", recount, row)
        self._agree("the files and the manifest's digests", digests, manifest["objects"])
        self._agree("the rows' parts and the manifest's", _keys(parts), _keys(manifest["parts"]))
        self._agree("results.jsonl and the parts", sorted(line["index"] for line in lines), sorted(covered.elements()))
        self._agree("failures.jsonl and results.jsonl", failed, [line for line in lines if "failure" in line])
        self._agree("failures.jsonl and the failures' rows", said, [tuple(row.values()) for row in rows])
        if recount["results"] + recount["failures"] + recount["cancelled"] != recount["total"]:
            self._say(f"its items do not add up: {recount}")
        if cancelled and job["cancel_requested_at"] is None:
            self._found.lost += cancelled
            self._say(f"{cancelled} items are cancelled though nobody asked for that")
        return lines

    def _check_items(self, lines: list[Row]) -> None:
        """Each item once, in order, with the answer to its own question."""
        times = Counter(line["index"] for line in lines)
        twice = [index for index, count in times.items() if count > 1]
        self._found.twice += len(twice)
        (job,) = self._rows("SELECT num_items, num_cancelled FROM jobs WHERE id = %s")
        without = job["num_items"] - len(times) - job["num_cancelled"]
        if without > 0:
            self._found.lost += without
            self._say(f"{without} items have no line and are not cancelled")
        if twice or [line["index"] for line in lines] != sorted(times):
            self._say(f"results.jsonl is not every item once in order; twice: {twice[:10]}")
        for line in lines:
            trouble = _answers(line, self._work.items[line["index"]])
            if trouble:
                self._found.lost += 1
                self._say(f"item {line['index']}: {trouble}")

    def _check_images(self, lines: list[Row]) -> None:
        """Every picture that a line names is there, has the digest, and shows what was asked for."""
        named = [(line, image) for line in lines for image in line.get("images", ())]
        with ThreadPoolExecutor(8) as pool:
            for line, trouble in pool.map(lambda pair: (pair[0], self._image_trouble(*pair)), named):
                if trouble:
                    self._found.lost += 1
                    self._say(f"item {line['index']}: {trouble}")

    def _image_trouble(self, line: Row, image: Row) -> str:
        name = f"{image['file'].removesuffix('.png')}-{image['sha256'][:16]}.png"
        data = self._get(f"jobs/{self._work.job_id}/images/{name}")
        if data is None or hashlib.sha256(data).hexdigest() != image["sha256"]:
            return f"its picture {name} is missing or has another digest"
        with Image.open(io.BytesIO(data)) as picture:
            shown = picture.convert("RGB").getpixel((0, 0))
        expected = colour_of(self._work.items[line["index"]].prompt, line["index"])
        return "" if shown == expected else f"its picture shows {shown}, not {expected}"

    # --- Words ----------------------------------------------------------------------------------------------------

    def _rows(self, query: str) -> list[Row]:
        return self._connection.execute(query, [self._work.job_id]).fetchall()  # type: ignore[arg-type]

    def _agree(self, what: str, one: Any, other: Any) -> None:
        if one != other:
            self._say(f"{what} do not agree: {str(one)[:300]} and {str(other)[:300]}")

    def _say(self, text: str) -> None:
        self._found.wrong.append(f"{self._work.name} {self._work.job_id}: {text}")


def _answers(line: Row, item: Expected) -> str:
    """Empty where the line is this item's and says what it must."""
    if line["id"] != item.id:
        return f"its id is {line['id']!r}, not {item.id!r}"
    code = line.get("failure", {}).get("code")
    if code != item.code:
        return f"its failure is {code}, not {item.code}: {line.get('failure')}"
    if code is None and item.colour is not None:
        expected = caption_of(item.prompt, item.colour, line["index"])
        return "" if line["caption"] == expected else f"its caption is {line['caption']!r}, not {expected!r}"
    if code is None and line["prompt"] != item.prompt:
        return f"its prompt is {line['prompt']!r}, not {item.prompt!r}"
    return ""


def _indexes(runs: Iterable[Sequence[int]]) -> Iterator[int]:
    for first, end in runs:
        yield from range(first, end)


def _lines(data: bytes) -> Iterator[Row]:
    return (json.loads(line) for line in data.splitlines())


def _described(data: bytes) -> Row:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _keys(parts: Iterable[Row]) -> list[tuple[str, str]]:
    return sorted((part["key"], part["sha256"]) for part in parts)
