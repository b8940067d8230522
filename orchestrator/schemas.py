"""Wire shapes: what crosses HTTP, shared by client and API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    model_validator,
)

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions, JobKind, JobState, check_option_types
from orchestrator.domain.quotas import MAX_QUOTA
from orchestrator.domain.strata import MAX_SAMPLE
from orchestrator.domain.turns import MAX_WEIGHT
from orchestrator.domain.urls import MAX_URL_LENGTH
from orchestrator.domain.webhooks import FORM_OF_SECRETS
from orchestrator.domain.windows import parse_window

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]*$")
]
ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=700)]
BucketUrl = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^s3://")]
Scope = Literal["jobs:read", "jobs:write", "admin"]


def finding_message(finding: Mapping[str, Any]) -> str:
    """What a check of a shape found, as people read it: our own sentences without what pydantic puts before them."""
    return str(finding["msg"]).removeprefix("Value error, ")


Count = Annotated[int, Strict()]  # not `true`, nor "5"
SampleSize = Annotated[int, Strict(), Field(ge=1, le=MAX_SAMPLE)]
Limit = Annotated[int, Strict(), Field(ge=1, le=MAX_QUOTA)]


def _of_its_types(kind: JobKind) -> BeforeValidator:
    """Options as JSON has them: `true` and "5" are no numbers. (Pydantic's strictness wants no dict here.)"""

    def check(value: Any) -> Any:
        if isinstance(value, dict):
            check_option_types(kind, value)
        return value

    return BeforeValidator(check)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _keep_text(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("give a time such as 2027-01-31T12:00:00Z")
    return value


def _as_window(text: str) -> str:
    try:
        return str(parse_window(text))
    except InvalidRequest as error:
        raise ValueError(error.message) from None


Window = Annotated[str, AfterValidator(_as_window)]
Moment = Annotated[AwareDatetime, BeforeValidator(_keep_text)]


class Wire(BaseModel):
    """Base of all wire shapes: a field that nobody knows is an error, not a surprise."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """Base of what the server says: an old client ignores fields that a newer server added."""

    model_config = ConfigDict(extra="ignore")


# --- Jobs ---------------------------------------------------------------------------------------------------------


class JobInput(Wire):
    """Where a job's items come from: inline, a manifest in an upload, every image of an upload in name order, or
    what lies below `s3://bucket/folder/` and in `s3://….tar`, where an operator opened them."""

    items: list[Any] | None = None
    upload: str | None = None
    manifest: ObjectName | None = None
    s3: Annotated[list[BucketUrl], BeforeValidator(_as_list), Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> JobInput:
        if self.s3 is not None and (self.items is not None or self.upload is not None):
            raise ValueError("`s3` stands alone; lines of `items` and of a manifest may name images by s3:// too")
        if self.s3 is None and self.items is None and self.upload is None:
            raise ValueError("give `items`, `s3`, or `upload` with or without `manifest`")
        if self.manifest is not None and self.upload is None:
            raise ValueError("`manifest` names an object of an upload; give `upload` too")
        if self.items is not None and self.manifest is not None:
            raise ValueError("give `items` or `manifest`, not both")
        if self.items == []:
            raise ValueError("`items` is empty")
        return self


class JobWebhook(Wire):
    """Where a job's end is told, and the secret that signs it."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)]
    secret: Annotated[str, StringConstraints(pattern=FORM_OF_SECRETS)]


class _JobCreate(Wire):
    name: Name = "untitled"
    model: ModelName
    input: JobInput
    priority: Count = Field(0, ge=-100, le=100)
    shard_items: Count | None = Field(None, ge=1, le=1024)
    webhook: JobWebhook | None = None
    window: Window | None = None
    deadline_at: Moment | None = None
    reuse: Annotated[bool, Strict()] = True
    sample: SampleSize | None = None


class CaptionJobCreate(_JobCreate):
    kind: Literal["caption"]
    options: Annotated[CaptionOptions, _of_its_types(JobKind.caption)] = Field(default_factory=CaptionOptions)


class GenerateJobCreate(_JobCreate):
    kind: Literal["generate"]
    options: Annotated[GenerateOptions, _of_its_types(JobKind.generate)] = Field(default_factory=GenerateOptions)


JobCreate = Annotated[CaptionJobCreate | GenerateJobCreate, Field(discriminator="kind")]


class _EstimateCreate(Wire):
    """What a job would be, with the number of its items in place of them."""

    model: ModelName
    items: Count = Field(ge=1, le=10**12)
    priority: Count = Field(0, ge=-100, le=100)
    shard_items: Count | None = Field(None, ge=1, le=1024)
    window: Window | None = None
    deadline_at: Moment | None = None


class CaptionEstimate(_EstimateCreate):
    kind: Literal["caption"]
    options: Annotated[CaptionOptions, _of_its_types(JobKind.caption)] = Field(default_factory=CaptionOptions)


class GenerateEstimate(_EstimateCreate):
    kind: Literal["generate"]
    options: Annotated[GenerateOptions, _of_its_types(JobKind.generate)] = Field(default_factory=GenerateOptions)


EstimateCreate = Annotated[CaptionEstimate | GenerateEstimate, Field(discriminator="kind")]


class MeasuredView(Answer):
    """What rates come from: so many items, by so many workers, between these times; `items_per_second` is of one."""

    items: int
    workers: int
    worker_seconds: float
    items_per_second: float
    since: datetime
    until: datetime


class AheadView(Answer):
    """Jobs that wait already and come before, or take turns; `seconds` is of all workers."""

    jobs: int
    items: int
    seconds: float | None


class EstimateView(Answer):
    """What a job would take that is submitted now; times and rates are null where nothing was measured.

    `seconds` is of the items alone, with all `workers`. `opens_at` and `closes_at` are the window's opening that is
    now, or comes next.
    """

    kind: JobKind
    model: str
    items: int
    images: int | None = None  # that are drawn; of captions null
    seconds: float | None
    items_per_second: float | None
    workers: int
    measured: MeasuredView | None
    ahead: AheadView
    starts_at: datetime | None
    ends_at: datetime | None
    opens_at: datetime | None
    closes_at: datetime | None
    fits_window: bool | None
    fits_deadline: bool | None
    notes: list[str]


class RetryCreate(Wire):
    """Which of the failed items to try again: those whose failure has one of these codes, or all of them."""

    codes: list[Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}$")]] | None = Field(
        None, min_length=1, max_length=50
    )


class ApproveCreate(Wire):
    """What is to be otherwise than in the sample: options, times, and `sample` where another look is wanted first.

    `window` and `deadline_at` are the sample's where they are left out.
    """

    options: dict[str, Any] | None = None
    sample: SampleSize | None = None
    window: Window | None = None
    deadline_at: Moment | None = None


class ReplayCreate(Wire):
    """Which item to make again."""

    index: Count = Field(ge=0, le=2**62)


class JobItems(Answer):
    """What became of the items; `reused` of the results were another item's before."""

    total: int
    results: int
    failures: int
    cancelled: int
    reused: int = 0

    @property
    def finished(self) -> int:
        return self.results + self.failures


class JobView(Answer):
    id: str
    name: str
    kind: JobKind
    model: str
    options: dict[str, Any]
    state: JobState
    state_reason: str | None
    waiting_reason: str | None
    items: JobItems
    items_per_second: float | None
    eta_seconds: float | None
    eta_at: datetime | None = None
    eta_basis: str | None = None
    priority: int
    window: str | None = None
    deadline_at: datetime | None = None
    reuse: bool = True
    sample: int | None = None
    sample_total: int | None = None
    waits_for_approval: bool = False
    approved_job: str | None = None
    rejected_at: datetime | None = None
    sampled_by: str | None = None
    replay_of: str | None = None
    replay_index: int | None = None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    paused_at: datetime | None
    cancel_requested_at: datetime | None
    manifest_sha256: str | None


class JobPage(Answer):
    jobs: list[JobView]
    next_cursor: str | None


class PartView(Answer):
    """Result lines of finished items: of the object at `url`, those with first_index <= index < end_index."""

    url: str
    sha256: str
    num_bytes: int
    first_index: int
    end_index: int


class PartsPage(Answer):
    """Parts in item order.

    `next_index` is where to go on: the first item of the shard that is still open, or of the next page. `complete`
    says that nothing more will come.
    """

    parts: list[PartView]
    next_index: int
    complete: bool


class FailureView(Answer):
    index: int
    id: str
    code: str
    message: str
    attempts: int


class FailuresPage(Answer):
    failures: list[FailureView]
    next_index: int | None


class EventView(Answer):
    id: int
    type: str
    shard_id: int | None
    attempt: int | None
    data: dict[str, Any]
    at: datetime


class EventsPage(Answer):
    events: list[EventView]
    next_id: int | None


class EditPut(Wire):
    """What somebody makes of a result: another caption (null leaves the model's), an approval, or both."""

    caption: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    approved: Annotated[bool, Strict()] = False


class EditView(Answer):
    index: int
    caption: str | None
    approved_at: datetime | None
    edited_by: str
    at: datetime


class EditsPage(Answer):
    edits: list[EditView]
    next_index: int | None


class DownloadsCreate(Wire):
    """Names below the job: `results.jsonl`, `manifest.json`, `images/…`, `shards/…`."""

    names: list[ObjectName] = Field(min_length=1, max_length=1000)


class UrlsView(Answer):
    """A presigned URL for each name, in the order of the names asked for."""

    urls: list[str]
    expires_seconds: int


# --- Uploads ------------------------------------------------------------------------------------------------------


class UploadView(Answer):
    id: str
    created_at: datetime


class UploadUrlsCreate(Wire):
    names: list[ObjectName] = Field(min_length=1, max_length=1000)


# --- Models, workers ----------------------------------------------------------------------------------------------


class ModelView(Answer):
    name: str
    family: str
    revision: str
    served: bool
    registered_at: datetime


class ModelsView(Answer):
    models: list[ModelView]


class WorkerView(Answer):
    id: str
    host: str
    pid: int
    models: list[str]
    alive: bool
    shards: int
    started_at: datetime
    heartbeat_at: datetime


class WorkersView(Answer):
    workers: list[WorkerView]


# --- Webhooks, report ---------------------------------------------------------------------------------------------


class WebhookCreate(Wire):
    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)]


class WebhookView(Answer):
    """`trouble` is what was wrong at `failed_at`, the last time that something was."""

    id: str
    url: str
    created_at: datetime
    delivered_at: datetime | None
    failed_at: datetime | None
    trouble: str | None


class NewWebhookView(WebhookView):
    """The only answer that ever holds the secret."""

    secret: str


class WebhooksView(Answer):
    webhooks: list[WebhookView]


class FailureExample(Answer):
    job: str
    index: int
    id: str
    message: str


class FailureGroup(Answer):
    """How many items failed with a code, and one of them."""

    code: str
    count: int
    example: FailureExample


class ReportView(Answer):
    """What became of the jobs that ran at some time from `since` to `until`; of each its whole life is counted.

    `jobs` holds the newest of them, `num_jobs` says how many there are.
    """

    since: datetime
    until: datetime
    num_jobs: int
    states: dict[JobState, int]
    items: JobItems
    failures: list[FailureGroup]
    jobs: list[JobView]


# --- Teams, keys --------------------------------------------------------------------------------------------------


class TeamCreate(Wire):
    name: Name


class TeamChange(Wire):
    """weight: how many turns it gets for each one of a team of weight 1."""

    weight: Count = Field(ge=1, le=MAX_WEIGHT)


class TeamView(Answer):
    id: str
    name: str
    weight: int
    created_at: datetime


class QuotaPut(Wire):
    """What a team may use; what is left out or null has no limit."""

    in_flight: Limit | None = None
    per_day: Limit | None = None
    stored_bytes: Limit | None = None


class QuotaUse(Answer):
    """`used` is null where nothing was measured."""

    limit: int | None
    used: int | None


class QuotaView(Answer):
    """What a team uses of its quota: items of shards that were begun, items of this day, bytes in the store.

    `per_day.used` holds what begun shards will add. `day_ends_at` is when it is 0 again, `measured_at` is of the bytes.
    """

    team_id: str
    in_flight: QuotaUse
    per_day: QuotaUse
    stored_bytes: QuotaUse
    day_ends_at: datetime
    measured_at: datetime | None


class TeamsView(Answer):
    teams: list[TeamView]


class KeyCreate(Wire):
    team: Name
    name: Name
    scopes: list[Scope] = Field(["jobs:read", "jobs:write"], min_length=1, max_length=10)
    expires_at: Moment | None = None


class KeyRotate(Wire):
    """For how long the old key goes on working beside the new one; 0 ends it at once."""

    overlap_days: Count = Field(7, ge=0, le=90)


class KeyView(Answer):
    id: str
    team_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    rotated_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKeyView(KeyView):
    """The only answer that ever holds the key itself."""

    key: str


class KeysView(Answer):
    keys: list[KeyView]


class WhoAmI(Answer):
    team: TeamView
    key_id: str
    scopes: list[str]


class AuditView(Answer):
    """A call that changed something; `team_id` and `key_id` are null where an operator did it at the server."""

    id: int
    at: datetime
    team_id: str | None
    key_id: str | None
    action: str
    object_id: str
    request_id: str | None
    address: str
    data: dict[str, Any]


class AuditPage(Answer):
    audit: list[AuditView]
    next_id: int | None


# --- Health, errors -----------------------------------------------------------------------------------------------


class Readiness(Answer):
    status: Literal["ready", "not_ready"]
    checks: dict[str, str]


class FindingView(Answer):
    """What one check of the servers found; where it is not ok, what to do stands in it."""

    check: str
    ok: bool
    finding: str


class DiagnosisView(Answer):
    findings: list[FindingView]


class Problem(BaseModel):
    """RFC 9457 problem document."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
