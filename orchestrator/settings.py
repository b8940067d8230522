"""What a server process is told from outside: one class, one default per setting, read from `JANUS_*` variables.

Secrets have no default: a process that needs one and was given none says so by name and does not start.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_MODEL = "janus-tiny"
"""What the local stack serves where nothing else was ever asked for; it comes with the package."""


class SettingsError(Exception):
    """A `JANUS_*` variable is missing or not of its form."""


class Settings(BaseSettings):
    """Settings of API, dispatcher, worker and admin commands."""

    model_config = SettingsConfigDict(env_prefix="JANUS_", extra="ignore")

    # Where things are.
    database_url: SecretStr  # postgresql+psycopg://user:password@host:port/name
    redis_url: SecretStr  # redis://:password@host:port/0
    s3_endpoint: str  # http://host:port as the servers see it
    s3_public_endpoint: str = ""  # http://host:port as clients see it; empty means the same
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str = "janus"
    s3_region: str = "us-east-1"
    input_buckets: Annotated[list[str], NoDecode] = Field(
        default_factory=list
    )  # "bucket/folder/", "team_…=bucket/folder/"
    api_host: str = "127.0.0.1"
    api_port: int = 8080
    trusted_proxies: str = ""  # addresses or networks, comma-separated, whose X-Forwarded-For is believed

    # Limits of what a client may send.
    presigned_url_seconds: int = Field(default=3600, gt=0, le=7 * 86_400)  # S3 takes a week at most
    max_request_bytes: int = 8 * 2**20
    max_requests_per_minute: int = Field(default=6000, ge=0)  # of one team, at one API process; 0 is no limit
    max_inline_items: int = 10_000
    max_item_line_bytes: int = 256 * 2**10
    max_manifest_bytes: int = 16 * 2**30
    max_open_jobs_per_team: int = 1000
    max_file_bytes: int = 200 * 2**20  # of an OpenAI client; these pass through the API
    max_openai_lines: int = 50_000
    max_openai_line_bytes: int = 16 * 2**20  # images may stand in it
    openai_link_seconds: int = Field(default=86_400, gt=0, le=7 * 86_400)  # where a line asked for links to its images

    # Shards and leases. The database's clock is the only clock that a lease knows.
    shard_items_caption: int = 64
    shard_items_generate: int = 16
    lease_seconds: float = 60.0
    heartbeat_seconds: float = 20.0
    control_seconds: float = 1.0  # how often a worker looks for cancel and pause
    flush_seconds: float = 5.0  # finished items reach the store at least this often
    attempt_seconds: float = 300.0  # an attempt that takes longer gives the rest of its shard back: others get a turn
    max_crashes: int = 3  # expired leases of one shard before it is halved
    retry_delay_seconds: float = 10.0  # after a store or database fault, times the number of tries, at most 30

    # Dispatch.
    loop_seconds: float = 0.5  # pause between two rounds of a loop that found nothing to do
    queue_depth: int = 16  # shards of one model that may wait in Redis at once
    republish_seconds: float = 15.0  # a dispatched shard that nobody leased is published again after this
    visibility_timeout_seconds: int = 900  # of the Redis transport: about twice the longest shard

    # The worker.
    worker_models: Annotated[list[str], NoDecode] = Field(default_factory=list)  # "name" or "name=/path/to/checkpoint"
    worker_id: str = ""  # empty: host, pid and a random tail
    device: str = "auto"
    dtype: str = "auto"
    kernels: Literal["auto", "plain", "packed", "compiled"] = "auto"
    quantize: Literal["none", "int8"] = "none"
    shards_in_flight: int = 2
    max_batch: int = Field(default=0, ge=0)  # rows in one step; 0: 16 on the CPU and 64 elsewhere
    max_image_bytes: int = 64 * 2**20
    max_image_pixels: int = 50_000_000
    decode_processes: int = Field(default=0, ge=0)  # that decode images at once; 0: as many as cores, at most 4
    decode_memory_bytes: int = Field(default=3 * 2**29, ge=2**28)  # address space of each of them
    decode_seconds: float = Field(default=10.0, gt=0)  # of CPU time for one image
    allow_image_urls: bool = False  # a caption item's image may be an http(s) URL
    image_url_hosts: Annotated[list[str], NoDecode] = Field(default_factory=list)  # empty: any that is public
    image_url_ports: str = Field(default="80,443", pattern=r"^\d{1,5}(,\d{1,5})*$")
    image_url_seconds: float = Field(default=30.0, gt=0)  # for one image, redirects included
    fetch_threads: int = 4
    stuck_seconds: float = 120.0  # a worker that sees dispatched work and gets none for so long exits, to be restarted
    engine_stuck_seconds: float = 900.0  # a model that takes no step for so long has hung: the process exits

    # Webhooks.
    webhook_seconds: float = Field(default=10.0, gt=0)  # for one try, from the first look-up to the answer
    allow_private_webhooks: bool = False  # they may lead to inner addresses; else to public ones only

    # What is kept.
    keep_days: int = Field(default=0, ge=0)  # an ended job and its objects are deleted after this; 0: never
    reuse_days: int = Field(default=30, ge=0)  # for how long a result may be used again; 0: not at all
    collect_hours: float = Field(default=0.0, ge=0)  # between two searches for objects that no row names; 0: none

    # Watching.
    metrics_port: int = 0  # where Prometheus reads this process, or the next free port above; 0: nowhere
    metrics_host: str = "127.0.0.1"  # on an address that only Prometheus reaches: nothing guards it

    home: Path = Field(default_factory=lambda: default_home())
    log_level: str = "info"

    def __init__(self, **values: object) -> None:
        super().__init__(**values)  # type: ignore[arg-type]
        if not self.s3_public_endpoint:
            self.s3_public_endpoint = self.s3_endpoint

    def secret_texts(self) -> list[str]:
        """What must never be seen in a log: the secrets, and of those that are URLs the password in it."""
        texts = [value.get_secret_value() for value in (self.database_url, self.redis_url, self.s3_secret_key)]
        passwords = [urlsplit(text).password for text in texts if "://" in text]
        return [text for text in (*texts, *passwords) if text]

    @field_validator("worker_models", "image_url_hosts", "input_buckets", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value


def default_home() -> Path:
    """`$JANUS_HOME`, or `~/.janus`."""
    return Path(os.environ.get("JANUS_HOME") or Path.home() / ".janus").expanduser().resolve()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        SettingsError: names each variable that is missing or wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"JANUS_{'_'.join(str(p) for p in e['loc']).upper()}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"settings are incomplete: {wrong}. See docs/operations.md, or start `janus up`.") from None
