"""The pictures of the dashboard in docs/pictures/, from a running product: python docs/screenshots.py

Real jobs of the model that comes with the package, in a system of their own that goes away again. Needs Debian's
chromium (/usr/bin/chromium).
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

from janus_core.evaluation.prompts import spread_prompts  # noqa: E402
from janus_core.evaluation.render import render  # noqa: E402
from janus_core.evaluation.scene import sample_scene  # noqa: E402
from orchestrator.client import Client, Job  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from orchestrator.settings import DEFAULT_MODEL  # noqa: E402
from tests.system import System, product_settings  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
MAX_BYTES = 150_000  # of a picture in the docs; one that is larger gets a palette
CHROMIUM = "/usr/bin/chromium"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def main() -> None:
    """All pages at both sizes, light and dark, into the folder that is named; without one, those of the docs."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="janus-screens-") as temporary, running(Path(temporary)) as system:
        key = system.make_key("Photo archive")
        with system.client(key) as client:
            paths = pages(make_jobs(client, Path(temporary) / "scenes"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            if folder is None:
                shoot_for_docs(browser, system, key, paths)
            else:
                shoot_all(browser, system, key, paths, folder)
            browser.close()


@contextmanager
def running(folder: Path) -> Iterator[System]:
    servers = Servers(folder / "servers")
    servers.start()
    system = System(servers.environment(), folder, DEFAULT_MODEL, **product_settings())
    try:
        system.start(1)
        yield system
    finally:
        system.stop()
        servers.stop()


def make_jobs(client: Client, folder: Path) -> dict[str, Job]:
    """Some that ended, one with failures, one that is drawn and one that waits."""
    rng = random.Random("screenshots")
    folder.mkdir()
    for number in range(60):
        render(sample_scene(rng), rng).save(folder / f"scene-{number:03}.png")
    (folder / "scene-007.png").write_bytes((folder / "scene-006.png").read_bytes()[:400])
    (folder / "scene-031.png").write_bytes(b"these are no pixels")
    prompts = [prompt for _, prompt in spread_prompts(48, rng)]
    captions = client.caption(folder, name="Shapes of the north wing", shard_items=4)
    captions.wait(600)
    cancelled = client.generate(prompts * 40, name="Too many drawings", seed=3)
    wait_for_items(cancelled, 50)
    cancelled.cancel()
    drawings = client.generate(prompts[:24], name="Stickers, first round", images=4, shard_items=2, seed=1)
    drawings.wait(600)
    client.caption([folder / "scene-001.png", folder / "scene-002.png"], name="Two of them again").wait(600)
    sample = client.caption(folder, name="All of the north wing", sample=8)
    sample.wait(600)
    replay = client.attach(drawings.replay(2).job)
    paused = client.generate(prompts, name="Posters for the hall")
    paused.pause()
    live = client.generate(prompts * 60, name="Stickers, second round", shard_items=8, seed=5)
    wait_for_items(live, 400)
    found = {"captions": captions, "drawings": drawings, "paused": paused, "live": live}
    return found | {"sample": sample, "replay": replay}


def wait_for_items(job: Job, count: int) -> None:
    while job.refresh().items.finished < count:
        time.sleep(0.5)


def pages(jobs: dict[str, Job]) -> dict[str, str]:
    captions, drawings, live = (jobs[name].id for name in ("captions", "drawings", "live"))
    return {
        "jobs": "/",
        "job": f"/jobs/{captions}",
        "job-live": f"/jobs/{live}",
        "gallery": f"/jobs/{captions}/gallery",
        "gallery-drawings": f"/jobs/{drawings}/gallery",
        "failures": f"/jobs/{captions}/failures",
        "item": f"/jobs/{captions}/items/3",
        "item-drawn": f"/jobs/{drawings}/items/2",
        "item-failed": f"/jobs/{captions}/items/7",
        "item-replayed": f"/jobs/{jobs['replay'].id}/items/0",
        "sample": f"/jobs/{jobs['sample'].id}",
        "new": "/new",
        "new-drawings": "/new?kind=generate",
        "workers": "/workers",
        "empty": "/?state=failed",
        "missing": "/jobs/job_nothing",
    }


def shoot_for_docs(browser: Browser, system: System, key: str, paths: dict[str, str]) -> None:
    for name, page_name, scheme in (
        ("dashboard-jobs", "jobs", "light"), ("dashboard-job", "job-live", "light"),
        ("dashboard-gallery", "gallery-drawings", "dark"), ("dashboard-sample", "sample", "light"),
    ):  # fmt: skip
        page = signed_in(browser, system, key, DESKTOP, scheme)
        path = PICTURES / f"{name}.png"
        shoot(page, system.url + paths[page_name], path, whole=False)
        if path.stat().st_size > MAX_BYTES:
            Image.open(path).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


def shoot_all(browser: Browser, system: System, key: str, paths: dict[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for size_name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=size, color_scheme=scheme)
            shoot(page, f"{system.url}/sign-in", folder / f"{size_name}-{scheme}-sign-in.png")
            page = signed_in(browser, system, key, size, scheme)
            for name, path in paths.items():
                shoot(page, system.url + path, folder / f"{size_name}-{scheme}-{name}.png")
            page = signed_in(browser, system, system.admin_key, size, scheme)
            shoot(page, f"{system.url}/teams", folder / f"{size_name}-{scheme}-teams.png")
            page.get_by_role("link", name="Photo archive").click()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"{size_name}-{scheme}-team.png", full_page=True)
            shoot(page, f"{system.url}/", folder / f"{size_name}-{scheme}-none.png")


def signed_in(browser: Browser, system: System, key: str, size: dict[str, int], scheme: str) -> Page:
    page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{system.url}/sign-in")
    page.get_by_label("Your team's key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{system.url}/")
    return page


def shoot(page: Page, url: str, path: Path, *, whole: bool = True) -> None:
    page.goto(url)
    page.wait_for_timeout(1500)  # a live page always loads; pictures are there by then
    page.screenshot(path=path, full_page=whole)


if __name__ == "__main__":
    main()
