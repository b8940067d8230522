"""What people have, as a stream of items: files, manifests, tables, tars, pictures in memory; and prompts."""

from __future__ import annotations

from orchestrator.client._sources.columns import Columns
from orchestrator.client._sources.images import bucket_urls, name_sources, read_image_sources
from orchestrator.client._sources.items import File, Region, SourceItem
from orchestrator.client._sources.prompts import read_prompt_sources
from orchestrator.client._sources.sweeps import sweep_over

__all__ = [
    "Columns",
    "File",
    "Region",
    "SourceItem",
    "bucket_urls",
    "name_sources",
    "read_image_sources",
    "read_prompt_sources",
    "sweep_over",
]
