"""What a run did, as ``report.json``: enough to repeat it and to compare two."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from xmem_protocol import WIRE_MAJOR, WIRE_MINOR, EngineInfo, InputError, PropagationSettings, Shot, Suggestion
from xmem_server import __version__


@dataclass(frozen=True)
class Report:
    """One run. Frame numbers are the plate's; ``seconds`` by stage.

    ``keys`` by frame: the object ids given there; ``objects``: what each id stands for in the artist's files.
    """

    plate: str
    shot: Shot
    settings: PropagationSettings
    engine: EngineInfo | None
    colour: str
    summary: str
    frames: tuple[int, ...]
    keys: Mapping[int, tuple[int, ...]]
    objects: Mapping[int, str]
    failed: Mapping[int, str]
    frames_per_second: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    suggestions: tuple[Suggestion, ...] = ()
    suggestion_note: str = ""


def save_report(path: Path, report: Report) -> None:
    """Write the report, whole or not at all. Raises InputError when it cannot be written."""
    fields = {
        "versions": {"xmem": __version__, "wire": f"{WIRE_MAJOR}.{WIRE_MINOR}", "python": platform.python_version()},
        **asdict(report),
    }
    save_json(path, fields)


def save_json(path: Path, fields: Mapping[str, object]) -> None:
    """Write a JSON file, whole or not at all. Raises InputError when it cannot be written."""
    waiting = path.with_name(path.name + ".part")
    try:
        waiting.write_text(json.dumps(fields, indent=1) + "\n", "utf-8")
        waiting.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}. Free some space or choose another folder."
        ) from None
