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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("guidance", value) for value in (float("nan"), float("inf"), -1.0, 101.0, "much")),
        *(("temperature", value) for value in (float("nan"), float("inf"), -1.0, 101.0, "warm")),
        *(("steps", value) for value in (0, -1, 1001, 2.5, True, "many")),
        *(("solver", value) for value in ("rk4", None, ["heun"])),
    ],
)
def test_bad_options_of_a_drawing_are_named(name: str, value: Any) -> None:
    fault = find_fault(GenerateRequest("x", **{name: value}))
    assert fault is not None
    assert fault.code == "option_invalid"
    assert fault.message.startswith(f"{name} is ")


def test_what_is_fine() -> None:
    assert find_fault(CaptionRequest(PICTURE, "x", max_new_tokens=1, temperature=1, top_p=0.1, top_k=5)) is None
    assert find_fault(GenerateRequest("x", seed=2**63 - 1, guidance=0, steps=30)) is None
    assert find_fault(GenerateRequest("x", steps=1000, solver="heun", noise="the engine looks at it")) is None
    fault = find_fault(CaptionRequest(PICTURE, "x", max_new_tokens=0))
    assert fault is not None


def test_the_temperature_of_a_caption_has_to_be_said() -> None:
    fault = find_fault(CaptionRequest(PICTURE, "x", temperature=None))  # type: ignore[arg-type]
    assert fault is not None
    assert fault.message.startswith("temperature is None")


def test_importing_the_package_loads_neither_torch_nor_transformers() -> None:
    code = "import janus_core, sys; print([m for m in ('torch', 'transformers', 'PIL', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
