from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from PIL import Image

from janus_core.engine.requests import CaptionRequest, GenerateRequest, find_fault

PICTURE = Image.new("RGB", (2, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "warm"},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_k": 2**31},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": True},
    ],
)
def test_bad_numbers_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    for fault in (find_fault(CaptionRequest(PICTURE, "x", **options)), find_fault(GenerateRequest("x", **options))):
        assert fault is not None
        assert fault.code == "option_invalid"
        assert fault.message.startswith(f"{name} is ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 101.0, None])
def test_bad_guidance(value: Any) -> None:
    fault = find_fault(GenerateRequest("x", guidance=value))
    assert fault is not None
    assert fault.code == "option_invalid"


def test_what_is_fine() -> None:
    assert find_fault(CaptionRequest(PICTURE, "x", max_new_tokens=1, temperature=1, top_p=0.1, top_k=5)) is None
    assert find_fault(GenerateRequest("x", seed=2**63 - 1, guidance=0, steps=30)) is None
    fault = find_fault(CaptionRequest(PICTURE, "x", max_new_tokens=0))
    assert fault is not None


def test_importing_the_package_loads_neither_torch_nor_transformers() -> None:
    code = "import janus_core, sys; print([m for m in ('torch', 'transformers', 'PIL', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
