"""What Celery does with a message for every item: publish, then run tasks that do nothing. Prints items a second.

python benchmarks/plain_celery.py MESSAGES, with JANUS_REDIS_URL; default settings but for the results nobody reads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import redis
from celery import Celery

QUEUE = "plain"
app = Celery("benchmarks.plain_celery", broker=os.environ["JANUS_REDIS_URL"])
app.conf.update(task_ignore_result=True, task_default_queue=QUEUE)


@app.task(name="caption")
def caption(index: int) -> None:
    """Nothing."""


def main(num_messages: int) -> None:
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.plain_celery", "worker", "-c", "2", "-l", "warning"]
    worker = subprocess.Popen([*command, "--without-gossip", "--without-mingle"], stdout=subprocess.DEVNULL)
    broker = redis.Redis.from_url(os.environ["JANUS_REDIS_URL"])
    try:
        run(broker, 100)  # it has started
        began = time.monotonic()
        run(broker, num_messages)
        print(num_messages / (time.monotonic() - began))
    finally:
        worker.terminate()
        worker.wait()


def run(broker: redis.Redis, num_messages: int) -> None:
    for index in range(num_messages):
        caption.delay(index)
    while broker.llen(QUEUE) or broker.hlen("unacked"):
        time.sleep(0.02)


if __name__ == "__main__":
    main(int(sys.argv[1]))
