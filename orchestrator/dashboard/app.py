"""The dashboard's routers, as the API takes them in."""

from __future__ import annotations

from orchestrator.dashboard.routes import entrance, gallery, jobs, submit, teams, workers

PAGES = (entrance.router, jobs.router, gallery.router, submit.router, workers.router, teams.router)
