"""Answers to result lines; images to objects named by their digest."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

from PIL import Image

from orchestrator.artifacts.base import ObjectStore
from orchestrator.domain.failures import Failure
from orchestrator.domain.shards import image_file, image_name
from workers.engine_host import Caption
from workers.metrics import stage


def caption_record(caption: Caption, *, seed: int) -> dict[str, Any]:
    return {
        "caption": caption.text.strip(),
        "num_tokens": len(caption.token_ids),
        "finish_reason": caption.finish_reason,
        "seed": seed,
    }


@stage("store")
def store_image(store: ObjectStore, job_id: str, index: int, k: int, image: Image.Image, seed: int) -> dict[str, Any]:
    """Put one generated image and describe it; the same pixels have the same name, so a repeat changes nothing."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    file = image_file(index, k)
    store.put(f"jobs/{job_id}/{image_name(file, sha256)}", data, "image/png")
    return {"file": file, "sha256": sha256, "width": image.width, "height": image.height, "seed": seed}


def failure_record(failure: Failure) -> dict[str, Any]:
    return {"failure": failure.as_json()}


def encode_line(index: int, item_id: str, record: dict[str, Any]) -> bytes:
    """One line of a results file; the same record gives the same bytes."""
    line = json.dumps({"index": index, "id": item_id, **record}, ensure_ascii=False, separators=(", ", ": "))
    return line.encode("utf-8", "replace") + b"\n"
