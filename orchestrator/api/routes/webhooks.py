"""Webhooks: addresses that hear of the ends of a team's jobs."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, Reader, Writer
from orchestrator.db import webhooks
from orchestrator.db.tables import WebhookRow
from orchestrator.domain.webhooks import check_webhook
from orchestrator.schemas import NewWebhookView, WebhookCreate, WebhooksView, WebhookView

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post("", status_code=201, responses={409: {}})
def create_webhook(
    body: WebhookCreate, session: DbSession, caller: Writer, services: AppServices, audit: Audit
) -> NewWebhookView:
    """Add an address. The answer holds the secret that signs what it hears, this once."""
    check_webhook(body.url, allow_private=services.settings.allow_private_webhooks)
    webhook = webhooks.create_webhook(session, caller.team_id, body.url)
    audit.record("webhook.created", webhook.id)
    return NewWebhookView(**_view(webhook).model_dump(), secret=webhook.secret)


@router.get("")
def list_webhooks(session: DbSession, caller: Reader) -> WebhooksView:
    """The team's addresses, and how they answered last."""
    return WebhooksView(webhooks=[_view(webhook) for webhook in webhooks.list_webhooks(session)])


@router.delete("/{webhook_id}", status_code=204, responses={404: {}})
def delete_webhook(webhook_id: Id, session: DbSession, caller: Writer, audit: Audit) -> None:
    """Tell it nothing more, not even what it was still to hear."""
    webhooks.delete_webhook(session, webhook_id)
    audit.record("webhook.deleted", webhook_id)


def _view(webhook: WebhookRow) -> WebhookView:
    return WebhookView(
        id=webhook.id,
        url=webhook.url,
        created_at=webhook.created_at,
        delivered_at=webhook.delivered_at,
        failed_at=webhook.failed_at,
        trouble=webhook.trouble,
    )
