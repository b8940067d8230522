"""What results are written into. Packages for tables and datasets are loaded when they are needed, not before."""

from __future__ import annotations

from orchestrator.client._outputs.download import download_results, write_dataset, write_frame
from orchestrator.client._outputs.earlier import Guard
from orchestrator.client._outputs.output import Existing, Form, Output, Sidecar

__all__ = ["Existing", "Form", "Guard", "Output", "Sidecar", "download_results", "write_dataset", "write_frame"]
