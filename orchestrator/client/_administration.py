"""What a server has and who may use it: models, workers, teams, keys, the audit."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import httpx

from orchestrator.client._errors import ClientError, TransferFailed
from orchestrator.client._faces import Call, Listing
from orchestrator.client._http import new_idempotency_key
from orchestrator.client._job import J
from orchestrator.client._options import build_request
from orchestrator.client._steps import Steps, Stream, work
from orchestrator.client._submission import Submission
from orchestrator.schemas import (
    AuditPage,
    AuditView,
    DiagnosisView,
    FindingView,
    KeyCreate,
    KeyRotate,
    KeysView,
    KeyView,
    ModelView,
    NewKeyView,
    NewWebhookView,
    QuotaPut,
    QuotaView,
    Readiness,
    ReportView,
    TeamChange,
    TeamCreate,
    TeamsView,
    TeamView,
    UploadView,
    WebhookCreate,
    WebhooksView,
    WebhookView,
    WhoAmI,
    WorkersView,
    WorkerView,
)


class Administration(Submission[J]):
    """The calls of a client that are not about one job."""

    @Call
    def models(self) -> Steps[list[ModelView]]:
        """Models that workers have served; `served` says whether one does now."""
        return self._look_at_models()

    @Call
    def workers(self) -> Steps[list[WorkerView]]:
        """Workers seen in the last day."""
        return (yield from self._api.call(WorkersView, "GET", "/v1/workers")).workers

    @Call
    def whoami(self) -> Steps[WhoAmI]:
        """The key's team and scopes."""
        return self._api.call(WhoAmI, "GET", "/v1/whoami")

    @Call
    def readiness(self) -> Steps[Readiness]:
        """Whether the server can work, and what is wrong where it cannot."""
        return self._api.call(Readiness, "GET", "/readyz")

    @Call
    def diagnosis(self) -> Steps[list[FindingView]]:
        """What the servers find wrong with themselves; needs the scope `admin`."""
        return (yield from self._api.call(DiagnosisView, "GET", "/v1/diagnosis")).findings

    @Call
    def check_transfer(self) -> Steps[str]:
        """Send a few bytes to the store and read them back, by presigned URLs; the store's address.

        Raises ClientError, of it TransferFailed for what the store did.
        """
        key = new_idempotency_key()
        upload = (yield from self._api.call(UploadView, "POST", "/v1/uploads", idempotency_key=key)).id
        sent = b"janus doctor"
        (put,) = yield from self._uploads.urls(upload, ["doctor.txt"])
        address = f"{httpx.URL(put).scheme}://{httpx.URL(put).netloc.decode()}"
        try:
            yield from work(partial(self._transfers.put, put, sent))
        except TransferFailed as error:
            raise TransferFailed(f"{address}: {error}", error.status) from error
        (get,) = yield from self._uploads.downloads(upload, ["doctor.txt"])
        if (yield from work(partial(self._transfers.get, get))) != sent:
            raise ClientError("the store gave back other bytes than were sent")
        return address

    @Call
    def report(self, since: datetime) -> Steps[ReportView]:
        """What the team's jobs did that ran at some time since then (a time with its zone), and why items failed."""
        return self._api.call(ReportView, "GET", "/v1/report", params={"since": since.isoformat()})

    @Call
    def create_webhook(self, url: str) -> Steps[NewWebhookView]:
        """An address that hears of each job's end; the answer holds the secret that signs what it hears."""
        return self._api.call(NewWebhookView, "POST", "/v1/webhooks", body=WebhookCreate(url=url).model_dump())

    @Call
    def webhooks(self) -> Steps[list[WebhookView]]:
        """The team's addresses, and how they answered last."""
        return (yield from self._api.call(WebhooksView, "GET", "/v1/webhooks")).webhooks

    @Call
    def delete_webhook(self, webhook_id: str) -> Steps[None]:
        """Tell an address nothing more."""
        yield from self._api.send("DELETE", f"/v1/webhooks/{webhook_id}")

    @Call
    def create_team(self, name: str) -> Steps[TeamView]:
        """Make a team."""
        return self._api.call(TeamView, "POST", "/v1/teams", body=TeamCreate(name=name).model_dump())

    @Call
    def teams(self) -> Steps[list[TeamView]]:
        """All teams."""
        return (yield from self._api.call(TeamsView, "GET", "/v1/teams")).teams

    @Call
    def set_team_weight(self, team_id: str, weight: int) -> Steps[TeamView]:
        """How many turns a team gets for each one of a team of weight 1; needs the scope `admin`."""
        return self._api.call(TeamView, "PATCH", f"/v1/teams/{team_id}", body=TeamChange(weight=weight).model_dump())

    @Call
    def quota(self, team_id: str | None = None) -> Steps[QuotaView]:
        """What a team may use, and what it does; of another team than the key's it needs the scope `admin`."""
        path = "/v1/quotas" if team_id is None else f"/v1/teams/{team_id}/quotas"
        return self._api.call(QuotaView, "GET", path)

    @Call
    def set_quota(
        self,
        team_id: str,
        *,
        in_flight: int | None = None,
        per_day: int | None = None,
        stored_bytes: int | None = None,
    ) -> Steps[QuotaView]:
        """What a team may use from now on; what is left out has no limit. Needs the scope `admin`.

        Args:
            in_flight: items of shards in the queue and in workers' hands.
            per_day: items computed in a day of UTC.
            stored_bytes: of its uploads and of what its jobs made.
        """
        values = {"in_flight": in_flight, "per_day": per_day, "stored_bytes": stored_bytes}
        body = build_request(QuotaPut, **values).model_dump()
        return self._api.call(QuotaView, "PUT", f"/v1/teams/{team_id}/quotas", body=body, repeatable=True)

    @Call
    def create_key(self, request: KeyCreate) -> Steps[NewKeyView]:
        """Make a key; the answer holds it, this once."""
        return self._api.call(NewKeyView, "POST", "/v1/keys", body=request.model_dump(mode="json"))

    @Call
    def keys(self, team: str | None = None) -> Steps[list[KeyView]]:
        """Keys without their secrets."""
        return (yield from self._api.call(KeysView, "GET", "/v1/keys", params={"team": team})).keys

    @Call
    def rotate_key(self, key_id: str, *, overlap_days: int = 7) -> Steps[NewKeyView]:
        """A new key in a live one's place; the old one works for so many days more."""
        body = KeyRotate(overlap_days=overlap_days).model_dump()
        return self._api.call(NewKeyView, "POST", f"/v1/keys/{key_id}/rotate", body=body)

    @Call
    def revoke_key(self, key_id: str) -> Steps[None]:
        """End a key at once."""
        yield from self._api.send("DELETE", f"/v1/keys/{key_id}")

    @Listing
    def audit(self, team: str | None = None) -> Stream[AuditView, None]:
        """Who changed what, the newest first."""
        return self._api.listed(
            AuditPage, "/v1/audit", "before_id", lambda page: (page.audit, page.next_id), params={"team": team}
        )
