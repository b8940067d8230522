"""The dashboard as people use it, in Debian's chromium: at both sizes, light and dark, and without any grave fault that
axe finds."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.system import System

CHROMIUM = Path("/usr/bin/chromium")
pytest.importorskip("playwright", reason="the browser is driven by playwright: pip install 'janus-batch[dev]'")
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: apt-get install chromium"),
]
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
GRAVE = {"serious", "critical"}
PATIENCE_SECONDS = 120  # the rest of the suite may be at work beside


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def _new_page(browser: Any, size: str, **options: Any) -> Iterator[Any]:
    """A page that is gone after its test, so that what it still does burdens no other."""
    context = browser.new_context(viewport=SIZES[size], **options)
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    try:
        yield context.new_page()
    finally:
        context.close()


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_a_job_from_sign_in_to_sign_out(
    system: System, browser: Any, photos: Path, tmp_path: Path, size: str, scheme: str
) -> None:
    with _new_page(browser, size, color_scheme=scheme) as page:
        _walk(page, system, photos, tmp_path, system.make_key(f"team-{size}-{scheme}"))


def _walk(page: Any, system: System, photos: Path, tmp_path: Path, key: str) -> None:
    errors: list[str] = []
    faults: list[Any] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("dialog", lambda dialog: dialog.accept())
    _sign_in(page, system, key, faults)
    _job_with_upload(page, photos, tmp_path, faults)
    _gallery_and_edit(page, faults)
    _edited_download(system, key, tmp_path)
    _retry(page)
    _live_progress_and_cancel(page, system, faults)
    for path in ("/", "/new", "/new?kind=generate", "/workers", "/jobs/job_nothing"):
        page.goto(system.url + path)
        _examine(page, faults)
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.goto(f"{system.url}/jobs/x")
    page.wait_for_url("**/sign-in?next=/jobs/x")
    assert errors == []
    assert faults == []


def _sign_in(page: Any, system: System, key: str, faults: list[Any]) -> None:
    page.goto(system.url)
    page.wait_for_url("**/sign-in")
    _examine(page, faults)
    page.get_by_label("Your team's key").fill("nonsense")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").get_by_text("This is not a key").wait_for()
    page.get_by_label("Your team's key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="No jobs yet").wait_for()
    _examine(page, faults)


def _job_with_upload(page: Any, photos: Path, tmp_path: Path, faults: list[Any]) -> None:
    """Three pictures go straight to the store, two of them with the same name, and one that is none."""
    (tmp_path / "again").mkdir(exist_ok=True)
    again, broken = tmp_path / "again" / "photo-00.jpg", tmp_path / "broken.jpg"
    again.write_bytes((photos / "photo-01.jpg").read_bytes())
    broken.write_bytes(b"no picture")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    page.get_by_role("link", name="New job").first.click()
    page.get_by_label("Pictures").set_input_files([photos / "photo-00.jpg", again, broken])
    page.get_by_label("What to ask").fill("What is this?")
    page.get_by_label("Name").fill("Three pictures")
    page.get_by_label("Tokens at most").fill("6")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url("**/jobs/job_*")
    assert len(sent) == 3
    page.locator("#job-state", has_text="completed").wait_for()  # without a reload of ours
    assert "3 of 3 items" in page.locator("#job-progress").inner_text()
    page.locator("#job-failures").get_by_text("image_unreadable").wait_for()
    _examine(page, faults)


def _gallery_and_edit(page: Any, faults: list[Any]) -> None:
    page.get_by_role("link", name="Gallery").first.click()
    cards = page.locator(".card")
    assert cards.count() == 3
    page.wait_for_function("[...document.querySelectorAll('.card img')].some(i => i.complete && i.naturalWidth > 0)")
    _examine(page, faults)
    cards.nth(1).get_by_role("link").click()
    page.get_by_role("textbox", name="Caption").fill("a caption by hand")
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("Saved.").wait_for()
    assert page.get_by_role("textbox", name="Caption").input_value() == "a caption by hand"
    page.get_by_text("The model said").wait_for()
    _examine(page, faults)
    page.get_by_role("link", name="Gallery").last.click()
    page.locator(".card", has_text="a caption by hand").get_by_text("approved").wait_for()
    page.get_by_role("spinbutton", name="Item").fill("2")
    page.get_by_role("button", name="Go").click()
    page.wait_for_url("**/gallery?index=2")
    page.get_by_role("link", name=re.compile("^Failures")).click()
    page.get_by_text("broken.jpg").wait_for()
    _examine(page, faults)
    page.get_by_role("link", name=re.compile("broken.jpg")).click()
    page.get_by_role("heading", name="image_unreadable").wait_for()
    _examine(page, faults)


def _edited_download(system: System, key: str, tmp_path: Path) -> None:
    """Who asks for edits gets them; the results themselves are as they were."""
    with system.client(key) as client:
        [job] = client.jobs()
        plain, edited = (
            job.download(tmp_path / f"{with_edits}.jsonl", edited=with_edits) for with_edits in (False, True)
        )
        assert job.verify().ok
    before, after = ([json.loads(line) for line in path.read_text().splitlines()] for path in (plain, edited))
    assert after[1] == before[1] | {"caption": "a caption by hand", "edited": True, "approved": True}
    assert [after[0], after[2]] == [before[0], before[2]]


def _retry(page: Any) -> None:
    page.get_by_label("Where you are").get_by_role("link", name="Three pictures").click()
    page.get_by_role("button", name="Retry 1 failure").click()
    page.wait_for_url("**?note=retried")
    page.get_by_role("heading", name="Three pictures (retry)").wait_for()
    page.locator("#job-state", has_text="completed").wait_for()


def _live_progress_and_cancel(page: Any, system: System, faults: list[Any]) -> None:
    """Numbers move on the list and on the job's page while the browser loads neither again."""
    page.goto(f"{system.url}/new?kind=generate")
    # A few lines with many pictures each: the browser types line after line, each slower than the one before.
    page.get_by_role("textbox", name="Prompts").fill("\n".join(f"prompt {number}" for number in range(200)))
    page.get_by_text("200 prompts").wait_for()
    page.get_by_label("Pictures for each prompt").fill("30")
    page.get_by_label("Name").fill("Long")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url("**?note=submitted")
    page.evaluate("window.stayed = true")
    seen = {_finished(page)}
    _wait(lambda: seen.add(_finished(page)) or len(seen) >= 3, "three different counts")
    assert page.evaluate("window.stayed") is True
    job_url = page.url.partition("?")[0]
    page.goto(system.url)
    row = page.locator("tr", has_text="Long")
    page.evaluate("window.stayed = true")
    before = row.inner_text()
    _wait(lambda: row.inner_text() != before, "the list moves")
    assert page.evaluate("window.stayed") is True
    page.goto(job_url)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Cancel").click()
    page.locator("#job-state", has_text="cancelled").wait_for()
    _examine(page, faults)


def _finished(page: Any) -> str:
    found = re.search(r"([\d,]+) of [\d,]+ items?", page.locator("#job-progress").inner_text())
    assert found is not None
    return found.group(1)


def _wait(holds: Any, what: str) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up_at, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.1)


def _examine(page: Any, faults: list[Any]) -> None:
    """In both schemes, whichever one the walk is in."""
    from axe_playwright_python.sync_playwright import Axe

    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        faults += [
            (page.url, scheme, fault["id"], node["html"][:200])
            for fault in found
            if fault["impact"] in GRAVE
            for node in fault["nodes"]
        ]
    width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    page.emulate_media(color_scheme="dark" if is_dark else "light")
    if width[0] > width[1]:
        faults.append((page.url, "wider than the window", width))


@pytest.mark.parametrize(("size", "scripts"), [("desktop", True), ("phone", False)])
def test_a_sample_is_looked_at_and_approved(
    fast_system: System, browser: Any, tmp_path: Path, size: str, scripts: bool
) -> None:
    """Without JavaScript too."""
    for number in range(20):
        Image.new("RGB", (16, 16), (number * 12, 90, 40)).save(tmp_path / f"{number:02d}.png")
    key = fast_system.make_key(f"samplers-{size}")
    with fast_system.client(key) as client:
        sample = client.caption(tmp_path, name="Twenty", prompt="what", temperature=0.5, sample=6)
        sample.wait(60)
    with _new_page(browser, size, java_script_enabled=scripts) as page:
        _approve_sample(page, fast_system, key, tmp_path if scripts else None)


def _approve_sample(page: Any, fast_system: System, key: str, examined: Path | None) -> None:
    """Args:
    examined: where a screenshot goes; None: a browser without scripts, which axe cannot examine.
    """
    faults: list[Any] = []
    page.goto(fast_system.url)
    page.get_by_label("Your team's key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("a sample, to be approved").wait_for()
    page.get_by_role("link", name="Twenty").click()
    page.get_by_role("heading", name="A sample: 6 items of 20").wait_for()
    assert page.locator("#job-sheet .card").count() == 6
    if examined:
        _examine(page, faults)
        page.screenshot(path=str(examined / "sample.png"), full_page=True)
    page.get_by_label("What to ask of each picture").fill("which")
    page.get_by_role("button", name="Try this prompt on the sample first").click()
    page.wait_for_url("**?note=again")
    with fast_system.client(key) as client:
        client.attach(page.url.rpartition("/")[2].partition("?")[0]).wait(60)
    page.reload()
    page.get_by_role("button", name="Approve").click()
    page.wait_for_url("**?note=approved")
    with fast_system.client(key) as client:
        whole = client.attach(page.url.rpartition("/")[2].partition("?")[0])
        assert whole.wait(60).items.reused == 6
        assert whole.view.options["prompt"] == "which"
    page.goto(f"{fast_system.url}/jobs/{whole.id}/items/3")
    page.get_by_role("button", name="Make it again and compare").click()
    page.wait_for_url("**?note=replayed")
    with fast_system.client(key) as client:
        client.attach(page.url.rpartition("/")[2].partition("?")[0]).wait(60)
    page.reload()
    page.get_by_role("link", name="compare").click()
    page.get_by_role("heading", name="Made again: the same").wait_for()
    if examined:
        _examine(page, faults)
    assert faults == []
