"""What is wrong with a system, as its servers see it, and what to do about each fault.

`janus doctor` asks the API for this. Where the API cannot answer, `python -m orchestrator.admin diagnose` does the same
on a machine that has the servers' settings.
"""

from __future__ import annotations

from orchestrator.diagnosis.examine import diagnose
from orchestrator.diagnosis.findings import Fault, Finding

__all__ = ["Fault", "Finding", "diagnose"]
