"""Ask a real Nuke what no documentation says: ``nuke -t examples/nuke_smoke.py [REPORT.json]``. Free of the network.

XMem for Nuke was written against documentation, scans and measurements by others. What it relies on beyond those is asked
here, one question at a time, and the answers go to a JSON report (by default ``xmem_nuke_report.json`` in the current
folder) worth sending back. Needs no plate; makes at most ten nodes between two empty scripts, so a Non-commercial or Indie
licence will do (``nuke --nc -t``). It starts with an empty script and saves nothing but the report and temporary files.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import nuke

# Nuke runs this as a script; whether it says __file__ then is not known.
sys.path.insert(0, str(Path(globals().get("__file__") or sys.argv[0]).resolve().parent))

from nuke_checks import common, gizmo, rendering, script

YES, NO, ERROR = "yes", "no", "error"
CHECKED = (gizmo, rendering, script)  # importing them puts their checks on the list


def run_checks(folder: Path) -> list[dict[str, object]]:
    """Give the answers, in order. A check that raises is an answer too, with its traceback."""
    answers: list[dict[str, object]] = []
    for check in common.CHECKS:
        nuke.scriptClear()
        try:
            is_so, detail = check(folder)
            answer = YES if is_so else NO
        except Exception:  # noqa: BLE001 - whatever Nuke does here is what is asked
            answer, detail = ERROR, traceback.format_exc()
        answers.append(
            {
                "check": check.__name__,
                "assumed": (check.__doc__ or "").splitlines()[0],
                "answer": answer,
                "detail": repr(detail),
            }
        )
    return answers


def make_report() -> dict[str, Any]:
    """Give what is known of this Nuke, and all answers."""
    nuke.pluginAppendPath((common.REPOSITORY / "gizmos").as_posix())
    with tempfile.TemporaryDirectory() as folder:
        checks = run_checks(Path(folder))
    about = {name: nuke.env.get(name) for name in ("NukeVersionString", "nc", "indie", "gui")}
    return {"nuke": about, "python": platform.python_version(), "platform": platform.platform(), "checks": checks}


def main(arguments: list[str]) -> int:
    """Write the report and say how it went; give 1 when an answer is not yes."""
    path = Path(arguments[0] if arguments else "xmem_nuke_report.json")
    report = make_report()
    path.write_text(json.dumps(report, indent=1), "utf-8")
    checks = report["checks"]
    for entry in checks:
        sys.stdout.write(f"{entry['answer']:5}  {entry['assumed']}\n")
    doubtful = sum(entry["answer"] != YES for entry in checks)
    sys.stdout.write(f"{len(checks) - doubtful} of {len(checks)} are as assumed. The report is {path.resolve()}\n")
    return 1 if doubtful else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
