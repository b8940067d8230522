"""The client that is awaited, against real servers: one job from end to end, and many at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.client import AsyncClient, JobNotEnded, NotFound
from tests.system import System

pytestmark = pytest.mark.services
JOBS, ITEMS = 25, 40


def client_of(system: System) -> AsyncClient:
    return AsyncClient(system.url, system.admin_key)


def test_job_from_end_to_end(fast_system: System, tmp_path: Path) -> None:
    for number in range(30):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "zz.png").write_bytes(b"no picture")

    async def drive() -> None:
        async with client_of(fast_system) as client:
            job = await client.caption(tmp_path, model="chaos", shard_items=4)
            results = [result async for result in job.results()]  # while it runs
            assert [result["id"] for result in results] == sorted(path.name for path in tmp_path.glob("*.png"))
            view = await job.wait(60)
            assert (view.items.results, view.items.failures) == (30, 1)
            assert [failure.code async for failure in job.failures()] == ["image_unreadable"]
            again = await job.retry_failures(codes=["image_unreadable"])
            assert (await again.wait(60)).items.failures == 1
            out = await job.download(tmp_path / "out")
            assert len(list(out.glob("*.txt"))) == 30
            assert (await job.verify()).ok
            assert len(await job.to_pandas()) == 31
            assert (await client.attach(job.id)).id == job.id
            assert job.id in [found.id async for found in client.jobs()]
            with pytest.raises(NotFound) as caught:
                await client.attach("job_nothing")
            assert caught.value.request_id.startswith("req_")
            await job.delete()

    asyncio.run(drive())


def test_many_jobs_at_once_in_one_thread(fast_system: System) -> None:
    async def one(client: AsyncClient, number: int) -> list[str]:
        job = await client.generate([f"{number}: {n}" for n in range(ITEMS)], model="chaos", shard_items=8)
        return [result["prompt"] async for result in job.results()]

    async def drive() -> None:
        async with client_of(fast_system) as client:
            beats, beating = 0, asyncio.Event()

            async def beat() -> None:
                nonlocal beats
                while not beating.is_set():
                    beats += 1
                    await asyncio.sleep(0.01)

            heart = asyncio.create_task(beat())
            began = time.monotonic()
            found = await asyncio.gather(*(one(client, number) for number in range(JOBS)))
            seconds = time.monotonic() - began
            beating.set()
            await heart
            assert found == [[f"{number}: {n}" for n in range(ITEMS)] for number in range(JOBS)]
            assert beats > 20 * seconds, "the loop was held up"

    asyncio.run(drive())


def test_task_that_is_cancelled_leaves_the_job_and_no_file(fast_system: System, tmp_path: Path) -> None:
    async def drive() -> None:
        async with client_of(fast_system) as client:
            job = await client.generate([f"prompt {n}" for n in range(200)], model="chaos", images=4)
            with pytest.raises(JobNotEnded):
                await job.wait(0)
            await job.wait(120)
            task = asyncio.create_task(job.download(tmp_path / "out"))
            while not list(tmp_path.glob("out/*.png")):
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not list(tmp_path.glob("out/*results.jsonl*"))
            await job.download(tmp_path / "out")
            assert len(list(tmp_path.glob("out/*.png"))) == 800

    asyncio.run(drive())


def test_samples_replays_and_round_trips_are_awaited(system: System, photos: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with client_of(system) as client:
            sample = await client.caption(photos, max_tokens=3, sample=2)
            await sample.wait(60)
            whole = await sample.approve()
            await whole.wait(120)
            assert (await whole.replay(11, timeout_seconds=60)).same
            assert (await whole.contact_sheet(tmp_path / "sheet.jpg", photos)).is_file()
            made = await client.roundtrip(photos / "photo-00.jpg", tmp_path / "trip")
            assert made.num_pairs == 1

    asyncio.run(work())
