"""Stands in for the processes of the stack, so that the supervisor alone is under test.

python stand_ins.py supervisor HOME     the real supervisor, over the stand-ins below
python stand_ins.py migrate|ensure-key|api|dispatcher|worker
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from orchestrator.local.commands import Commands
from orchestrator.local.supervisor import supervise


def home() -> Path:
    return Path(os.environ["JANUS_HOME"])


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/readyz":
            return self.answer(200, {"status": "ready"})
        if self.headers["Authorization"] != "Bearer jns_test_key":
            return self.answer(401, {})
        return self.answer(200, {"workers": [worker(path) for path in (home() / "seen").glob("*.json")]})

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def worker(path: Path) -> dict[str, object]:
    pid = int(path.stem)
    return {"id": path.stem, "pid": pid, "alive": psutil.pid_exists(pid), "models": json.loads(path.read_text())}


def wait_for_the_end(seconds_to_stop: float = 0.0) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    while not ended.wait(0.2):
        pass
    time.sleep(seconds_to_stop)
    with (home() / "ended.txt").open("a") as file:
        file.write(f"{sys.argv[1]}\n")


def main(role: str) -> int:
    if role == "supervisor":
        here = ("python", __file__)
        table = Commands(*((*here, name) for name in ("migrate", "ensure-key", "api", "dispatcher", "worker")))
        return supervise(Path(sys.argv[2]), table)
    if role == "migrate":
        (home() / "migrated").touch()
        return 3 if "fails-to-migrate" in os.environ.get("JANUS_TEST", "") else 0
    if role == "ensure-key":
        print("jns_test_key")
        return 0
    if role == "api":
        server = ThreadingHTTPServer((os.environ["JANUS_API_HOST"], int(os.environ["JANUS_API_PORT"])), Api)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    if role == "worker":
        if "worker-fails" in os.environ.get("JANUS_TEST", ""):
            print("no such model")
            return 1
        seen = home() / "seen"
        seen.mkdir(exist_ok=True)
        (seen / f"{os.getpid()}.json").write_text(json.dumps(os.environ["JANUS_WORKER_MODELS"].split(",")))
    wait_for_the_end(0.2 if role == "worker" else 0.0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
