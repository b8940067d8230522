"""Whatever is sent, the API answers as its own description says: made-up requests over every operation.

`make fuzz` sends many more of them (FUZZ_EXAMPLES, of each operation).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.db import workers
from orchestrator.db.session import connect, session_factory
from orchestrator.domain.keys import SCOPES
from tests.system import System

pytestmark = pytest.mark.services
HOOKS = Path(__file__).parents[1] / "fuzz_hooks.py"
# A request of the right shape may still name what is not there, or what does not go together: 422 is right then.
NOT_CHECKED = "positive_data_acceptance"
JOB = {"kind": "generate", "model": "m", "input": {"items": [{"prompt": "p"}]}}


@pytest.fixture
def system(environment: dict[str, str], tmp_path: Path) -> Iterator[System]:
    """An API that has room for as many jobs as it is asked for, and knows a model `m`."""
    started = System(
        environment,
        tmp_path,
        "m",
        JANUS_MAX_OPEN_JOBS_PER_TEAM="1000000",
        JANUS_MAX_REQUESTS_PER_MINUTE="0",
    )
    engine = connect(environment["JANUS_DATABASE_URL"])
    with session_factory(engine).begin() as session:
        workers.register_model(session, "m", family="janus-pro", revision="r")
    engine.dispose()
    try:
        started.start_api()
        yield started
    finally:
        started.stop()


def test_the_api_is_as_it_says(system: System, tmp_path: Path) -> None:
    examples, seed = os.environ.get("FUZZ_EXAMPLES", "5"), os.environ.get("FUZZ_SEED", "1")
    key = system.make_key("operators", SCOPES)
    headers = {"Authorization": f"Bearer {key}"}
    form: dict[str, Any] = {"files": {"file": ("f", b"{}")}, "data": {"purpose": "batch"}}
    file_id = httpx.post(f"{system.url}/openai/v1/files", headers=headers, **form).json()["id"]
    batch = {"input_file_id": file_id, "endpoint": "/v1/images/generations", "completion_window": "24h"}
    webhook = {"url": "https://example.org/hear"}
    other_key = system.make_key("others")
    teams = httpx.get(f"{system.url}/v1/teams", headers=headers).json()["teams"]
    existing = {
        "FUZZ_JOB_ID": httpx.post(f"{system.url}/v1/jobs", headers=headers, json=JOB).json()["id"],
        "FUZZ_UPLOAD_ID": httpx.post(f"{system.url}/v1/uploads", headers=headers).json()["id"],
        "FUZZ_FILE_ID": file_id,
        "FUZZ_BATCH_ID": httpx.post(f"{system.url}/openai/v1/batches", headers=headers, json=batch).json()["id"],
        "FUZZ_WEBHOOK_ID": httpx.post(f"{system.url}/v1/webhooks", headers=headers, json=webhook).json()["id"],
        "FUZZ_INDEX": "0",
        "FUZZ_TEAM_ID": next(team["id"] for team in teams if team["name"] == "others"),
        "FUZZ_OWN_KEY_ID": key.split("_")[2],
        "FUZZ_KEY_ID": other_key.split("_")[2],
    }
    report = tmp_path / "report.ndjson"
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{system.url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--checks", "all", "--exclude-checks", NOT_CHECKED,
        "--max-examples", examples, "--seed", seed, "--continue-on-failure", "--no-color",
        "--suppress-health-check", "all", "--report", "ndjson", "--report-ndjson-path", str(report),
    ]  # fmt: skip
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)} | existing
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    statuses = Counter(re.findall(r'"status_code": ?(\d+)', report.read_text()))
    print(f"{sum(statuses.values())} answers: {dict(sorted(statuses.items()))}", done.stdout[-1500:], sep="\n")
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:] + system.log_ends()
    assert httpx.get(f"{system.url}/v1/whoami", headers=headers).status_code == 200, "the key was revoked on the way"
    assert {"200", "201", "204", "400", "401", "404", "409", "422"} <= set(statuses), "some kind of answer never came"
    assert "internal_error" not in system.log_path("api").read_text()
