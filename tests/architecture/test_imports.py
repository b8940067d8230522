"""What a fresh interpreter loads: the client is light, and importing the core does nothing."""

from __future__ import annotations

import subprocess
import sys


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_client_loads_no_server_and_no_tensors() -> None:
    heavy = {"torch", "sqlalchemy", "celery", "fastapi", "transformers", "numpy", "PIL", "redis", "minio", "psycopg"}
    heavy |= {"pandas", "pyarrow", "datasets", "webdataset", "IPython"}
    assert not loaded_by("import orchestrator.client") & heavy


def test_command_line_loads_no_server_and_no_tensors() -> None:
    heavy = {"torch", "sqlalchemy", "celery", "fastapi", "transformers", "numpy", "psycopg"}
    assert not loaded_by("import orchestrator.cli.main") & heavy


def test_decoders_load_no_tensors_and_no_client_of_a_server() -> None:
    heavy = {
        "torch",
        "transformers",
        "sqlalchemy",
        "celery",
        "redis",
        "minio",
        "psycopg",
        "httpx",
        "httpcore",
        "urllib3",
    }
    assert not loaded_by("import workers.decoder") & heavy


def test_workers_do_not_load_torch_on_import() -> None:
    assert "torch" not in loaded_by("import workers.runner")
