"""The three servers as they are: real processes, real data, real crashes."""

from __future__ import annotations

import io
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import redis
from minio import Minio
from minio.error import S3Error

from orchestrator.local.errors import ServerError
from orchestrator.local.servers import Servers

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("home"))
    servers.start()
    yield servers
    servers.stop()


def query(servers: Servers, statement: str) -> list[tuple[object, ...]]:
    url = servers.environment()["JANUS_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def valkey_client(servers: Servers) -> redis.Redis:
    return redis.Redis.from_url(servers.environment()["JANUS_REDIS_URL"], decode_responses=True)


def s3_client(servers: Servers) -> Minio:
    env = servers.environment()
    host = env["JANUS_S3_ENDPOINT"].removeprefix("http://")
    return Minio(
        host, access_key=env["JANUS_S3_ACCESS_KEY"], secret_key=env["JANUS_S3_SECRET_KEY"], secure=False,
        region="us-east-1",
    )  # fmt: skip


def write_marks(servers: Servers, mark: str) -> None:
    query(servers, "CREATE TABLE IF NOT EXISTS marks (mark text)")
    query(servers, f"INSERT INTO marks VALUES ('{mark}')")
    with valkey_client(servers) as client:
        client.set(mark, "kept")
    s3_client(servers).put_object("janus", mark, io.BytesIO(b"kept"), 4)


def read_marks(servers: Servers, mark: str) -> tuple[bool, bool, bool]:
    rows = query(servers, f"SELECT mark FROM marks WHERE mark = '{mark}'")
    with valkey_client(servers) as client:
        value = client.get(mark)
    answer = s3_client(servers).get_object("janus", mark)
    try:
        return bool(rows), value == "kept", answer.read() == b"kept"
    finally:
        answer.close()
        answer.release_conn()


def processes(servers: Servers) -> list[psutil.Process]:
    found = [psutil.Process(server.pid) for server in servers.all if server.pid is not None]
    return [process for parent in found for process in (parent, *parent.children(recursive=True))]


def test_starting_again_changes_nothing_and_another_object_finds_them(servers: Servers) -> None:
    pids = [server.pid for server in servers.all]
    servers.start()
    other = Servers(servers.home)
    other.start()
    assert [server.pid for server in other.all] == pids == [server.pid for server in servers.all]
    assert other.environment() == servers.environment()


def test_data_and_ports_are_the_same_after_a_restart(servers: Servers) -> None:
    write_marks(servers, "before-restart")
    before = [(server.port, server.pid) for server in servers.all]
    for server in servers.all:
        server.restart()
    assert [server.port for server in servers.all] == [port for port, _ in before]
    assert all(server.pid != pid for server, (_, pid) in zip(servers.all, before, strict=True))
    assert read_marks(servers, "before-restart") == (True, True, True)


def test_nothing_listens_beyond_the_loopback_address(servers: Servers) -> None:
    pids = {process.pid for process in processes(servers)}
    listening = [c for c in psutil.net_connections("inet") if c.pid in pids and c.status == psutil.CONN_LISTEN]
    assert {c.laddr.port for c in listening} >= {server.port for server in servers.all}
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


def test_each_server_refuses_who_has_no_password(servers: Servers) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host="127.0.0.1", port=servers.postgres.port, user="janus", password="wrong", dbname="janus")
    stranger = redis.Redis(host="127.0.0.1", port=servers.valkey.port)
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    thief = Minio(f"127.0.0.1:{servers.s3.port}", access_key="a", secret_key="b" * 16, secure=False, region="us-east-1")
    with pytest.raises(S3Error, match=r"AccessDenied|InvalidAccessKeyId"):
        thief.stat_object("janus", "stolen")
    assert httpx.get(f"{servers.s3.endpoint}/janus/", trust_env=False).status_code == 403


def test_passwords_are_in_private_files_and_on_no_command_line(servers: Servers) -> None:
    path = servers.home / "secrets.json"
    passwords = json.loads(path.read_text()).values()
    holding = [
        file for file in servers.home.rglob("*")
        if file.is_file() and file.stat().st_size < 100_000 and any(p.encode() in file.read_bytes() for p in passwords)
    ]  # fmt: skip
    assert path in holding
    reachable = [f for f in holding if stat.S_IMODE(f.stat().st_mode) & 0o077 and not private_above(f, servers.home)]
    assert reachable == []
    lines = " ".join(word for process in processes(servers) for word in process.cmdline())
    assert not any(password in lines for password in passwords)


def private_above(file: Path, home: Path) -> bool:
    return any(not folder.stat().st_mode & 0o077 for folder in file.parents if folder.is_relative_to(home / "s3"))


def test_valkey_keeps_every_key_and_appends_to_disk(servers: Servers) -> None:
    with valkey_client(servers) as client:
        settings = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}


def test_all_three_come_back_with_their_data_after_kill_9_of_everything(servers: Servers) -> None:
    write_marks(servers, "before-crash")
    time.sleep(1.1)  # Valkey's promise is one second
    ports = [server.port for server in servers.all]
    killed = processes(servers)
    for process in killed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed, timeout=10)
    assert not any(server.is_alive() for server in servers.all)
    # The pid that Postgres left is another program's by now: ours.
    stale = servers.home / "postgres" / "data" / "postmaster.pid"
    stale.write_text("\n".join([str(os.getpid()), *stale.read_text().splitlines()[1:]]) + "\n")
    servers.start()
    assert [server.port for server in servers.all] == ports
    assert read_marks(servers, "before-crash") == (True, True, True)


def test_a_server_started_by_a_thread_outlives_the_thread(servers: Servers) -> None:
    thread = threading.Thread(target=servers.valkey.restart)
    thread.start()
    thread.join()
    pid = servers.valkey.pid
    time.sleep(0.3)
    assert servers.valkey.pid == pid
    assert servers.valkey.why_silent() == ""


def test_a_port_that_somebody_took_is_replaced(servers: Servers) -> None:
    servers.valkey.stop()
    before = servers.valkey.port
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", before))
        thief.listen()
        servers.valkey.start()
    assert servers.valkey.port != before
    with valkey_client(servers) as client:
        assert client.ping()


def test_a_server_that_cannot_start_says_why_and_where_its_log_is(tmp_path: Path) -> None:
    servers = Servers(tmp_path / "home")
    data = tmp_path / "home" / "valkey" / "data"
    data.mkdir(parents=True)
    (data / "appendonlydir").write_text("not a folder")
    with pytest.raises(ServerError, match="append-only") as caught:
        servers.valkey.start(timeout_seconds=1.0)
    assert str(caught.value.log) in str(caught.value)
    assert not servers.valkey.is_alive()


START_AND_HOLD = """
import sys
from pathlib import Path
from orchestrator.local.servers import Servers
servers = Servers(Path(sys.argv[1]))
servers.start()
print(*(server.pid for server in servers.all), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_servers_end_with_a_starter_that_is_killed_and_start_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START_AND_HOLD, str(tmp_path / "home")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pids = [int(word) for word in starter.stdout.readline().split()]
        assert len(pids) == 3
        starter.kill()
    servers = Servers(tmp_path / "home")
    servers.start()  # at once, while the old ones are still ending
    try:
        assert not set(pids) & {server.pid for server in servers.all}
        assert not any(is_running(pid) for pid in pids)
    finally:
        servers.stop()
    assert not any(server.is_alive() for server in servers.all)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Privileges are dropped after the imports, because root's Python may lie where nobody else can read it.
AS_ORDINARY_USER = """
import os, sys
from pathlib import Path
from orchestrator.local.servers import Servers
"load".encode("idna")
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))
servers = Servers(Path(sys.argv[1]))
servers.start()
servers.postgres.restart()
servers.kill()
servers.start()
servers.stop()
print("worked")
"""


INSTALLATION = Path(sys.prefix).resolve()


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
@pytest.mark.skipif(
    not all(folder.stat().st_mode & stat.S_IXOTH for folder in (INSTALLATION, *INSTALLATION.parents)),
    reason="an ordinary user has no way to the programs in this installation",
)
def test_an_ordinary_user_can_run_them_too() -> None:
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp())
    try:
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        command = [sys.executable, "-c", AS_ORDINARY_USER, str(home), str(nobody.pw_uid), str(nobody.pw_gid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout.strip() == "worked", done.stderr
        assert {path.stat().st_uid for path in home.rglob("*")} == {nobody.pw_uid}
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="Postgres changes the account only for root")
def test_root_s_postgres_runs_as_nobody_below_a_folder_that_only_root_may_enter(servers: Servers) -> None:
    assert servers.postgres.pid is not None
    assert psutil.Process(servers.postgres.pid).uids().effective == pwd.getpwnam("nobody").pw_uid
    assert stat.S_IMODE(servers.home.stat().st_mode) == 0o700
    assert signal.SIGINT in dict(servers.postgres.stop_signals)
