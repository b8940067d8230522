"""The bytes: uploads, parts, images, manifests."""

from __future__ import annotations

from orchestrator.artifacts.s3 import S3Store
from orchestrator.domain.places import InputPlaces, PlacesWrong
from orchestrator.settings import Settings, SettingsError


def open_store(settings: Settings) -> S3Store:
    """The store that the settings name."""
    return S3Store(
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )


def open_places(settings: Settings) -> InputPlaces:
    """Where teams' images may lie beside their uploads. Raises SettingsError."""
    try:
        return InputPlaces(settings.input_buckets, own_bucket=settings.s3_bucket)
    except PlacesWrong as error:
        raise SettingsError(f"JANUS_INPUT_BUCKETS: {error}") from None
