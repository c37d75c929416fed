"""The checkpoints this machine has: what can be fetched, fetching it, and knowing later that it is still the same file.

A checkpoint ``NAME.pth`` lies in one folder with ``NAME.pth.json`` beside it: its SHA-256 and size as recorded on first
use (none is published to pin), and where it came from. Nothing here opens a checkpoint; a separate process checks it by
name and shape without executing it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from xmem_client import hash_file
from xmem_protocol import InputError
from xmem_server.engines import child_environment

_RELEASE = "https://github.com/hkchengrex/XMem/releases/download/v1.0/"
OFFICIAL = {
    "XMem": (_RELEASE + "XMem.pth", "trained on images, DAVIS, YouTubeVOS and BL30K: the authors' best for most shots"),
    "XMem-s012": (_RELEASE + "XMem-s012.pth", "the same without the last fine-tuning: a little behind on average"),
}
_PIECE = 1024 * 1024
_TIMEOUT = 30.0  # seconds without a byte
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"  # how the two forms of torch's checkpoint files begin
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)$")

OnBytes = Callable[[int, int], None]


@dataclass(frozen=True)
class WeightsRecord:
    """What is remembered of a checkpoint: SHA-256 in hexadecimal, size in bytes, and its address (empty: not fetched)."""

    sha256: str
    nbytes: int
    url: str


@dataclass(frozen=True)
class Answer:
    """How a server answers a download: where its bytes begin, the whole size (0: it does not say), the file's ETag."""

    start: int
    total: int
    etag: str


def fetch_folder() -> Path:
    """Give the folder checkpoints are kept in: $XMEM_WEIGHTS, else xmem/weights in the user's cache folder."""
    named = os.environ.get("XMEM_WEIGHTS")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "xmem" / "weights"


def fetch_model_choice(text: str) -> str:
    """Give what ``--model`` means: ``compact``, or the absolute path of a checkpoint.

    ``text`` is ``compact``, a file, or the name of a checkpoint fetched before. A checkpoint with a record beside it is
    compared with it. Raises InputError when it is not there or no longer the same file.
    """
    if text == "compact":
        return text
    path = Path(text).expanduser()
    if text in OFFICIAL and not path.exists():
        path = fetch_folder() / f"{text}.pth"
        if not path.exists():
            raise InputError(f"{text} is not on this machine yet. Fetch it with: xmem weights get {text}")
    if not path.is_file():
        known = ", ".join(("compact", *OFFICIAL))
        raise InputError(f"There is no model {text}. Give one of {known}, or the path of a checkpoint file.")
    check_record(path)
    return str(path.resolve())


def fetch_record(path: Path) -> WeightsRecord | None:
    """Give what is recorded of a checkpoint, or None. Raises InputError when the record cannot be read."""
    beside = _record_path(path)
    try:
        found = json.loads(beside.read_text("utf-8"))
        return WeightsRecord(str(found["sha256"]), int(found["nbytes"]), str(found.get("url", "")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{beside} cannot be read ({error}). Delete it to record the checkpoint anew.") from error


def check_record(path: Path) -> None:
    """Raise InputError when a checkpoint is no longer the file that was recorded; without a record, say nothing."""
    record = fetch_record(path)
    if record is None:
        return
    if path.stat().st_size != record.nbytes or hash_file(path) != record.sha256:
        raise InputError(
            f"{path} is not the file recorded on its first use: it was changed or damaged. "
            f"Delete it and {_record_path(path).name}, then fetch it again."
        )


def save_record(path: Path, url: str) -> WeightsRecord:
    """Give the record of a checkpoint, written beside it."""
    record = WeightsRecord(hash_file(path), path.stat().st_size, url)
    beside = _record_path(path)
    waiting = beside.with_name(beside.name + ".part")
    waiting.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")
    waiting.replace(beside)
    return record


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def check_weights(path: Path) -> str:
    """Give one line about a checkpoint that fits the network by every name and shape.

    It is read in a process of its own. Raises InputError, with that process's one line, when it does not fit.
    """
    command = [sys.executable, "-m", "xmem_server.worker", "--check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
    lines = [line for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines() if line.strip()]
    if done.returncode == 0:
        return lines[-1] if lines else f"{path} fits."
    said = lines[-1] if lines else f"{path} cannot be checked: the checking process ended with code {done.returncode}."
    raise InputError(said.removeprefix("xmem: "))


# ------------------------------------------------------------------------------------------------------------ download


def download(url: str, path: Path, on_bytes: OnBytes, check: Callable[[Path], str] = check_weights) -> WeightsRecord:
    """Give the record of a checkpoint fetched to ``path``; the file there is whole and checked, or absent.

    A download that was cut leaves ``NAME.part.pth`` and goes on from there the next time, provided the address still
    has the same file. ``on_bytes`` is told (bytes here, bytes in all or 0); ``check`` raises InputError for a file that
    does not fit, which is then removed. Raises InputError when it cannot be had.
    """
    part, tag = path.with_name(path.stem + ".part" + path.suffix), path.with_name(path.stem + ".part.etag")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        total = _download_part(url, part, tag, on_bytes)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _broken_download(url, part, error) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}. Free space or set XMEM_WEIGHTS."
        ) from error
    _check_whole(url, part, total)
    _check_content(url, part, tag)
    tag.unlink(missing_ok=True)
    try:
        check(part)
    except InputError:
        part.unlink()
        raise
    part.replace(path)
    return save_record(path, url)


def _download_part(url: str, part: Path, tag: Path, on_bytes: OnBytes) -> int:
    """Give the whole size the server says (0: it does not say), with all the bytes it sent in ``part``."""
    here = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "xmem-nuke", "Accept-Encoding": "identity"}
    if here and tag.exists():
        headers |= {"Range": f"bytes={here}-", "If-Range": tag.read_text("utf-8")}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT) as reply:
            answer = _fetch_answer(reply)
            tag.write_text(answer.etag, "utf-8")
            if not answer.etag:
                tag.unlink()
            _check_space(part, answer)
            with part.open("r+b" if answer.start else "wb") as file:
                file.seek(answer.start)
                file.truncate()
                _copy(reply, file, answer, on_bytes)
            return answer.total
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # the part is all there is
                return here
            raise


def _fetch_answer(reply: http.client.HTTPResponse) -> Answer:
    etag = reply.headers.get("ETag", "")
    length = int(reply.headers.get("Content-Length") or 0)
    found = _CONTENT_RANGE.match(reply.headers.get("Content-Range", ""))
    if reply.status == http.client.PARTIAL_CONTENT and found:
        return Answer(int(found[1]), int(found[2]), etag)
    return Answer(0, length, etag)


def _check_space(part: Path, answer: Answer) -> None:
    free = shutil.disk_usage(part.parent).free
    if answer.total - answer.start > free:
        raise InputError(
            f"The checkpoint needs {_megabytes(answer.total)}; {part.parent} has {_megabytes(free)} free. "
            "Free some space or set XMEM_WEIGHTS to another folder."
        )


def _copy(reply: http.client.HTTPResponse, file: BinaryIO, answer: Answer, on_bytes: OnBytes) -> None:
    here = answer.start
    while piece := reply.read1(_PIECE):
        file.write(piece)
        here += len(piece)
        on_bytes(here, answer.total)
    file.flush()
    os.fsync(file.fileno())


def _check_whole(url: str, part: Path, total: int) -> None:
    here = part.stat().st_size
    if total and here != total:
        raise InputError(
            f"The download of {url} stopped at {_megabytes(here)} of {_megabytes(total)}. "
            "Run the same command again to go on from there."
        )


def _check_content(url: str, part: Path, tag: Path) -> None:
    """Raise InputError, and drop what came, when it is a web page or anything else that is no checkpoint."""
    with part.open("rb") as file:
        start = file.read(512)
    if start.startswith((_ZIP, _PICKLE)):
        return
    nbytes = part.stat().st_size
    part.unlink()
    tag.unlink(missing_ok=True)
    is_page = start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
    what = (
        "a web page (is there a login or a proxy in between?)" if is_page else f"{nbytes} bytes that are no checkpoint"
    )
    raise InputError(f"{url} gave {what}. Fetch the file with a browser and use it with --model FILE.")


def _broken_download(url: str, part: Path, error: Exception) -> InputError:
    if isinstance(error, urllib.error.HTTPError):
        return InputError(f"{url} answers {error.code} {error.reason}. Check the address, or try again later.")
    reason = getattr(error, "reason", None) or error or type(error).__name__
    here = part.stat().st_size if part.exists() else 0
    again = f"{_megabytes(here)} are kept; run the same command again to go on." if here else "Try again when it is up."
    return InputError(f"{url} cannot be reached or broke off: {reason}. {again}")


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB"
