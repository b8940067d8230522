"""The models that have a name: where they come from, and whether they are here.

    python -m janus_core.registry list|show|pull|verify [NAME|FOLDER] [--lock] [--json]

A shipped model comes with this package. A pulled one lies in $JANUS_HOME/models/NAME beside its janus.lock.json, which
names the repository, the commit, the VAE's repository and commit where it has one, and size and sha256 of every file.
`verify FOLDER --lock` gives a checkpoint of one's own a lock of its files alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from janus_core.errors import JanusCoreError, PullFailed, UnknownModel
from janus_core.locks import read_lock, verify, write_lock

SDXL_VAE_REPO = "stabilityai/sdxl-vae"
_WANTED = ("*.json", "*.safetensors", "*.bin")
VAE_FOLDER = "vae"
_WANTED_OF_A_VAE = ("config.json", "diffusion_pytorch_model.safetensors")
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class KnownModel:
    """A model with a name.

    repo: on the Hugging Face hub; None for one that is shipped. roles: how its prompts name the speakers. vae_repo: of
    JanusFlow, the VAE that is pulled into its folder `vae`.
    """

    name: str
    repo: str | None
    family: Literal["janus", "janus-pro", "janusflow"]
    roles: Literal["plain", "bracketed"]
    vae_repo: str | None = None


MODELS = {
    model.name: model
    for model in (
        KnownModel("janus-tiny", None, "janus-pro", "bracketed"),
        KnownModel("janusflow-tiny", None, "janusflow", "plain"),
        KnownModel("janus-1.3b", "deepseek-ai/Janus-1.3B", "janus", "plain"),
        KnownModel("janus-pro-1b", "deepseek-ai/Janus-Pro-1B", "janus-pro", "bracketed"),
        KnownModel("janus-pro-7b", "deepseek-ai/Janus-Pro-7B", "janus-pro", "bracketed"),
        KnownModel("janusflow-1.3b", "deepseek-ai/JanusFlow-1.3B", "janusflow", "plain", vae_repo=SDXL_VAE_REPO),
    )
}


def models_folder() -> Path:
    """$JANUS_HOME/models; JANUS_HOME is ~/.janus where it is not set."""
    return Path(os.environ.get("JANUS_HOME") or Path.home() / ".janus") / "models"


def resolve(name_or_path: str | Path) -> Path:
    """The checkpoint folder of a path, of a shipped model, or of a name under $JANUS_HOME/models.

    Raises UnknownModel: neither, or a published model that was not pulled to the end; the message says what to run.
    """
    folder = _find_folder(name_or_path)
    if folder.name in MODELS and folder == models_folder() / folder.name:
        absent = _absent_files(folder)
        if absent:
            raise UnknownModel(f"{folder} lacks {', '.join(absent)}. Run: janus models pull {folder.name}")
    return folder


def _find_folder(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_dir():
        return path
    name = str(name_or_path)
    if name in MODELS and MODELS[name].repo is None:
        return SHIPPED / name
    pulled = models_folder() / name
    if name and path.name == name and pulled.is_dir():
        return pulled
    if name in MODELS:
        raise UnknownModel(f"{name} is not in {models_folder()}. Run: janus models pull {name}")
    raise UnknownModel(f"{name!r} is neither a folder nor a model; models are {', '.join(MODELS)}")


def _absent_files(folder: Path) -> list[str]:
    """What the lock names, or else what no checkpoint is without, and is not there."""
    lock = read_lock(folder)
    if lock is not None:
        return [name for name in lock["files"] if not (folder / name).is_file()]
    needed = ["config.json", "tokenizer.json"]
    if MODELS[folder.name].vae_repo is not None:
        needed.append(f"{VAE_FOLDER}/config.json")
    absent = [name for name in needed if not (folder / name).is_file()]
    weights = any(True for pattern in ("*.safetensors", "*.bin") for _ in folder.glob(pattern))
    return absent if weights else [*absent, "weights"]


def find_known(name: str, folder: Path) -> KnownModel | None:
    """The model of this name, or the one that the folder's lock says it was pulled from."""
    if name in MODELS:
        return MODELS[name]
    repo = (read_lock(folder) or {}).get("repo")
    return next((model for model in MODELS.values() if repo is not None and model.repo == repo), None)


def pull(name: str, download: Callable[[str, Path], str] | None = None) -> Path:
    """Fetch a published model into $JANUS_HOME/models and lock it.

    It is fetched beside its place and moved there at the end: what lies there is whole, also after a pull that failed.

    Args:
        download: (repo, folder) to the commit; the hub's unless a test hands in another.
    Raises:
        UnknownModel: not one of `MODELS`.
        PullFailed: it is shipped; or what did arrive is kept, and the next pull goes on from there.
    """
    model = _find_named(name)
    if model.repo is None:
        raise PullFailed(f"{name} comes with this package, in {SHIPPED / name}: there is nothing to pull")
    folder = models_folder() / name
    arriving, leaving = folder.with_name(f".{name}.arriving"), folder.with_name(f".{name}.leaving")
    arriving.mkdir(parents=True, exist_ok=True)
    fetch = download or _download_from_hub
    origin = {"repo": model.repo, "commit": fetch(model.repo, arriving)}
    if model.vae_repo is not None:
        (arriving / VAE_FOLDER).mkdir(exist_ok=True)
        origin |= {"vae_repo": model.vae_repo, "vae_commit": fetch(model.vae_repo, arriving / VAE_FOLDER)}
    write_lock(arriving, origin)
    _remove(leaving)
    if folder.exists() or folder.is_symlink():
        folder.rename(leaving)
    arriving.rename(folder)
    _remove(leaving)
    return folder


def _find_named(name: str) -> KnownModel:
    if name not in MODELS:
        raise UnknownModel(f"{name!r} is not a known model; models are {', '.join(MODELS)}")
    return MODELS[name]


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _download_from_hub(repo: str, folder: Path) -> str:
    from huggingface_hub import HfApi, snapshot_download

    is_vae = any(repo == model.vae_repo for model in MODELS.values())
    try:
        commit = str(HfApi().model_info(repo).sha)
        wanted = list(_WANTED_OF_A_VAE if is_vae else _WANTED)
        snapshot_download(repo, revision=commit, local_dir=folder, allow_patterns=wanted)
    except Exception as error:  # the hub's own, its HTTP library's and the system's
        raise PullFailed(f"{repo} could not be fetched: {error}. Run the same command again to go on.") from error
    return commit


def revision_of(folder: Path) -> str:
    """The commit it was pulled from, or else "sha256:" and 16 digits over configs and samples of weights and VAE.

    Samples, because 15 GB are not read to name a model: of every weight file its name, size, first megabyte and 64
    blocks of 4 KB spread from end to end. `verify` is what reads everything.
    """
    commit = (read_lock(folder) or {}).get("commit")
    if commit:
        return str(commit)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    drawing = folder / "generation_config.json"
    digest.update(drawing.read_bytes() if drawing.is_file() else b"")
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob(f"{VAE_FOLDER}/*")]):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}:{size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            for block in range(64):
                file.seek(max(0, size - 4096) * block // 63)
                digest.update(file.read(4096))
    return f"sha256:{digest.hexdigest()[:16]}"


def describe(model: KnownModel) -> dict[str, Any]:
    """A model as `list` and `show` print it; its revision is None where it was not pulled."""
    if model.repo is None:
        folder = SHIPPED / model.name
        return {**asdict(model), "folder": str(folder), "revision": revision_of(folder)}
    folder = models_folder() / model.name
    return {**asdict(model), "folder": str(folder), "revision": (read_lock(folder) or {}).get("commit")}


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m janus_core.registry", description="Models with a name.")
    parser.add_argument("command", choices=("list", "show", "pull", "verify"))
    parser.add_argument("model", nargs="?", help="a name; for verify also a folder")
    parser.add_argument("--lock", action="store_true", help="verify: lock a folder that never was")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.command != "list" and options.model is None:
        parser.error(f"{options.command} needs a model")
    if options.lock and options.command != "verify":
        parser.error("--lock belongs to verify")
    try:
        answer = _answer(options.command, options.model, options.lock)
    except JanusCoreError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        print(f"{options.command} {options.model}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    rows = answer if isinstance(answer, list) else [answer]
    text = (
        json.dumps(answer) if options.json else "\n".join("  ".join(f"{k}={v}" for k, v in row.items()) for row in rows)
    )
    print(text)  # noqa: T201
    return 0


def _answer(command: str, name: str, lock: bool) -> dict[str, Any] | list[dict[str, Any]]:
    if command == "list":
        return [describe(model) for model in MODELS.values()]
    if command == "verify":
        folder = _find_folder(name)
        if lock and read_lock(folder) is None:
            write_lock(folder)
        return {"folder": str(folder), "files": verify(folder), "commit": revision_of(folder)}
    if command == "pull":
        pull(name)
    return describe(_find_named(name))


if __name__ == "__main__":
    sys.exit(main())
