"""The truth: every row that the system keeps. Migrations follow this file; nothing else defines a column."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        date: Date,
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: ARRAY(Text),
        list[int]: ARRAY(BigInteger),
        list[UUID]: ARRAY(Uuid),
    }


class TeamRow(Table):
    __tablename__ = "teams"
    __table_args__ = (CheckConstraint("weight BETWEEN 1 AND 1000", name="weight"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    weight: Mapped[int] = mapped_column(server_default=text("1"))  # its share of the workers, beside other teams'
    quota_in_flight: Mapped[int | None]  # items; None is no limit, as with the next two
    quota_per_day: Mapped[int | None]  # items
    quota_stored_bytes: Mapped[int | None]
    stored_bytes: Mapped[int] = mapped_column(server_default=text("0"))  # as the meter last found them
    stored_at: Mapped[datetime | None]  # when that was; None where nobody looked, as no quota wants to know
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TeamDayRow(Table):
    """Items of a team that were computed on a day of UTC: counted when their shard ends, in its transaction."""

    __tablename__ = "team_days"

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    num_items: Mapped[int]


class KeyRow(Table):
    """A team's secret, as a hash."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), index=True)
    name: Mapped[str]
    secret_sha256: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    rotated_at: Mapped[datetime | None]  # when another key was made in its place
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class UploadRow(Table):
    """A prefix that a team may write below: `uploads/{team}/{id}/`."""

    __tablename__ = "uploads"
    __table_args__ = (
        UniqueConstraint("team_id", "idempotency_key"),
        Index("ix_uploads_measure", "team_id", "measure_at", postgresql_where=text("measure_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    idempotency_key: Mapped[str | None]
    stored_bytes: Mapped[int] = mapped_column(server_default=text("0"))  # as last measured
    measure_at: Mapped[datetime | None] = mapped_column(server_default=func.now())  # next; None: nothing more comes
    writable_until: Mapped[datetime | None]  # the end of the last link that was given out
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ModelRow(Table):
    """A model that some worker has served."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    family: Mapped[str]
    revision: Mapped[str]
    image_size: Mapped[int | None]  # pixels of a side of what it draws
    registered_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RateRow(Table):
    """What a worker computed in an hour that began then, and how long it had work of this model and kind.

    work: see domain.estimates. seconds: of the hour, those in which it held a shard of these.
    """

    __tablename__ = "rates"
    __table_args__ = (Index("ix_rates_hour", "hour"),)

    model: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    worker_id: Mapped[str] = mapped_column(primary_key=True)
    num_items: Mapped[int]
    work: Mapped[float]
    seconds: Mapped[float]
    last_at: Mapped[datetime]


class WorkerRow(Table):
    """One worker process; `heartbeat_at` is its only sign of life."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    models: Mapped[list[str]]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    stopped_at: Mapped[datetime | None]


class JobRow(Table):
    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("team_id", "idempotency_key"),
        Index("ix_jobs_team_id_created_at_id", "team_id", "created_at", "id"),
        Index("ix_jobs_open", "state", postgresql_where=text("state IN ('accepted', 'running', 'finishing')")),
        Index(
            "ix_jobs_unread",
            "team_id",
            "created_at",
            "id",
            postgresql_where=text("state = 'accepted' AND cancel_requested_at IS NULL"),
        ),
        Index(
            "ix_jobs_unfinished",
            "team_id",
            "created_at",
            "id",
            postgresql_where=text("state IN ('accepted', 'running', 'finishing')"),
        ),
        Index(
            "ix_jobs_turn",
            "model",
            "team_id",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=text("state = 'running' AND paused_at IS NULL AND cancel_requested_at IS NULL"),
        ),
        Index(
            "ix_jobs_deadline",
            "deadline_at",
            postgresql_where=text("state IN ('accepted', 'running') AND cancel_requested_at IS NULL"),
        ),
        Index("ix_jobs_started_at", "started_at", "team_id", postgresql_where=text("started_at IS NOT NULL")),
        Index("ix_jobs_finished_at", "finished_at", "team_id", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_jobs_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        Index("ix_jobs_upload_id", "upload_id", postgresql_where=text("upload_id IS NOT NULL")),
        Index("ix_jobs_retry_of", "retry_of", postgresql_where=text("retry_of IS NOT NULL")),
        Index("ix_jobs_measure", "team_id", "measure_at", postgresql_where=text("measure_at IS NOT NULL")),
        Index(
            "ix_jobs_in_windows",
            "run_window",
            "reported_at",
            postgresql_where=text("state = 'running' AND run_window IS NOT NULL"),
        ),
        CheckConstraint("kind IN ('caption', 'generate')", name="kind"),
        CheckConstraint(
            "state IN ('accepted', 'running', 'finishing', 'completed', 'cancelled', 'expired', 'failed')", name="state"
        ),
        CheckConstraint(
            "state NOT IN ('completed', 'cancelled', 'expired') "
            "OR num_results + num_failures + num_cancelled = num_items",
            name="every_item_ended_once",
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    kind: Mapped[str]
    model: Mapped[str]
    options: Mapped[dict[str, Any]]
    input: Mapped[dict[str, Any]] = mapped_column(deferred=True)  # megabytes where items came inline; for the reader
    upload_id: Mapped[str | None] = mapped_column(Computed("(input ->> 'upload'::text)", persisted=True))
    retry_of: Mapped[str | None] = mapped_column(Computed("(input ->> 'retry_of'::text)", persisted=True))
    replay_index: Mapped[int | None]  # of the item of `retry_of` that is made again; None: all that failed are
    sample: Mapped[int | None]  # how many items it takes of its input, one of each stratum; None: all
    sample_total: Mapped[int | None]  # how many items that input has
    sampled_by: Mapped[str | None]  # the sample whose approval made this job
    approved_job_id: Mapped[str | None]  # of a sample, the job that its approval made; may be deleted before it
    rejected_at: Mapped[datetime | None]  # of a sample
    webhook: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)  # url and secret; for the job's end
    shard_items: Mapped[int]
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    run_window: Mapped[str | None]  # when it may run, as domain.windows writes it
    deadline_at: Mapped[datetime | None]
    state: Mapped[str]
    state_reason: Mapped[str | None]  # why it failed
    num_items: Mapped[int] = mapped_column(server_default=text("0"))
    num_results: Mapped[int] = mapped_column(server_default=text("0"))  # these three are set once, when the job ends
    num_failures: Mapped[int] = mapped_column(server_default=text("0"))
    num_cancelled: Mapped[int] = mapped_column(server_default=text("0"))
    num_reused: Mapped[int] = mapped_column(server_default=text("0"))  # of the results; set when the job ends
    reuse: Mapped[bool] = mapped_column(server_default=text("true"))  # of results that the team has
    manifest_sha256: Mapped[str | None]
    stored_bytes: Mapped[int] = mapped_column(server_default=text("0"))  # of its objects, as last measured
    measure_at: Mapped[datetime | None] = mapped_column(server_default=func.now())  # next; None: nothing more comes
    reported_at: Mapped[datetime | None]  # the end of the last night of its window that was told
    reported_items: Mapped[int] = mapped_column(server_default=text("0"))  # finished ones that it told of, in all
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]  # from then on no client sees it; its objects and rows go as soon as they can


class ShardRow(Table):
    __tablename__ = "shards"
    __table_args__ = (
        UniqueConstraint("job_id", "first_index"),
        Index("ix_shards_waiting", "job_id", "first_index", postgresql_where=text("state = 'waiting'")),
        Index("ix_shards_dispatched", "published_at", postgresql_where=text("state = 'dispatched'")),
        Index("ix_shards_leased", "lease_expires_at", postgresql_where=text("state = 'leased'")),
        CheckConstraint("state IN ('waiting', 'dispatched', 'leased', 'done', 'cancelled')", name="state"),
        CheckConstraint("num_results + num_failures <= num_items", name="no_item_twice"),
        CheckConstraint("state <> 'done' OR num_results + num_failures = num_items", name="done_is_all"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    items_key: Mapped[str]  # the object that holds the items, and where in it they are; halves of a shard share it
    items_offset: Mapped[int]
    items_bytes: Mapped[int]
    first_index: Mapped[int]
    num_items: Mapped[int]
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    attempt: Mapped[int] = mapped_column(server_default=text("0"))  # counted when dispatched; the fence of every write
    crashes: Mapped[int] = mapped_column(server_default=text("0"))  # expired leases since an item last finished
    releases: Mapped[int] = mapped_column(
        server_default=text("0")
    )  # attempts given back after a fault that is not the items'
    not_before: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]  # last, as what is not answered is published again
    closes_at: Mapped[
        datetime | None
    ]  # the end of its job's window, as of when it was dispatched: no lease from then on
    worker_id: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    parts: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    num_results: Mapped[int] = mapped_column(server_default=text("0"))
    num_failures: Mapped[int] = mapped_column(server_default=text("0"))
    num_reused: Mapped[int] = mapped_column(server_default=text("0"))  # of the results


class ReusablePartRow(Table):
    """A part that is named by its shard's row, and which of its results may be used again: see decisions/0009.

    item_indexes: where in the part the result of each identity is.
    """

    __tablename__ = "reusable_parts"
    __table_args__ = (
        Index(None, "identities", postgresql_using="gin", postgresql_with={"fastupdate": False}),
        Index(None, "job_id"),
        Index(None, "created_at"),
    )

    key: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    sha256: Mapped[str]
    num_bytes: Mapped[int]
    identities: Mapped[list[UUID]]
    item_indexes: Mapped[list[int]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class FailureRow(Table):
    """An item that has no result, and why."""

    __tablename__ = "failures"
    __table_args__ = (Index("ix_failures_job_id_code_index", "job_id", "code", "index"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[str]
    code: Mapped[str]
    message: Mapped[str]
    attempts: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class EditRow(Table):
    """What somebody made of an item's result: another caption, an approval, or both. The result stays as it is."""

    __tablename__ = "edits"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    caption: Mapped[str | None]  # None: as the model said it
    approved_at: Mapped[datetime | None]
    edited_by: Mapped[str]  # the id of a key
    at: Mapped[datetime]


class EventRow(Table):
    """One transition of a job or a shard."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    shard_id: Mapped[int | None]
    attempt: Mapped[int | None]
    type: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class AuditRow(Table):
    """Who changed what, and from where. A trigger keeps rows from being changed, and from going within 90 days."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_team_id_id", "team_id", "id"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    team_id: Mapped[str | None]  # whose key it was; None for an operator at the server
    key_id: Mapped[str | None]
    action: Mapped[str]
    object_id: Mapped[str]
    request_id: Mapped[str | None]
    address: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class OpenaiFileRow(Table):
    """Bytes that an OpenAI client sent, or that its batch made; `key` names the object."""

    __tablename__ = "openai_files"
    __table_args__ = (
        Index("ix_openai_files_team_id_created_at_id", "team_id", "created_at", "id"),
        Index("ix_openai_files_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        Index("ix_openai_files_expires", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
        CheckConstraint("purpose IN ('batch', 'batch_output')", name="purpose"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    purpose: Mapped[str]
    filename: Mapped[str]
    key: Mapped[str] = mapped_column(unique=True)
    num_bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]  # from then on no client sees it; the object goes first, the row last


class OpenaiBatchRow(Table):
    """An OpenAI batch: an input file, the job that its good lines became, and the files that came of it."""

    __tablename__ = "openai_batches"
    __table_args__ = (
        Index("ix_openai_batches_team_id_created_at_id", "team_id", "created_at", "id"),
        Index(
            "ix_openai_batches_open",
            "created_at",
            postgresql_where=text("state IN ('validating', 'in_progress', 'cancelling', 'finalizing')"),
        ),
        Index("ix_openai_batches_job_id", "job_id", postgresql_where=text("job_id IS NOT NULL")),
        CheckConstraint(
            "state IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', "
            "'cancelled')",
            name="state",
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    endpoint: Mapped[str]
    input_file_id: Mapped[str]  # that file may be deleted before its batch
    upload_id: Mapped[str | None]  # what image names lie below, and what the batch's own objects do
    completion_window: Mapped[str]
    labels: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    output_seconds: Mapped[int | None]  # for how long its files are kept
    state: Mapped[str]
    job_id: Mapped[str | None]  # a job may be deleted before its batch
    model: Mapped[str | None]
    num_refused: Mapped[int] = mapped_column(server_default=text("0"))  # lines that became no item
    errors: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    output_file_id: Mapped[str | None]
    error_file_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    in_progress_at: Mapped[datetime | None]
    finalizing_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    expired_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]


class WebhookRow(Table):
    """An address that hears of the end of each of its team's jobs. The secret signs, so it is kept as it is."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_team_id", "team_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    url: Mapped[str]
    secret: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]  # last
    failed_at: Mapped[datetime | None]  # last
    trouble: Mapped[str | None]  # what was wrong then


class DeliveryRow(Table):
    """A message that is to reach a webhook: written with the job's end, kept until it was said or given up."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("ix_deliveries_open", "next_at", postgresql_where=text("ended_at IS NULL")),
        Index("ix_deliveries_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # the same for each try, so that a receiver knows a repeat
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    job_id: Mapped[str]  # may be deleted before
    webhook_id: Mapped[str | None] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))  # None: the job's own
    url: Mapped[str]
    secret: Mapped[str]
    body: Mapped[str]  # JSON as it is signed and sent
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    trouble: Mapped[str | None]  # of the last try; None with ended_at: it was delivered
