"""An engine that computes nothing: it speaks the pipes and does what ``script.json`` in its folder says.

Run as a child process: ``python scripted_engine.py FOLDER``. It appends every plan it gets to ``plans.jsonl``. The script is
read again for each plan: ``refuse``, ``exit_at_start``, ``garbage_at_start``; ``die_at`` (frame; ``die_always`` else once),
``wait_at`` (frame: until the file ``go`` exists), ``fail``, ``fail_frame``, ``wrong_size``, ``bad_path``.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from xmem_protocol import Cancel, Suggestion
from xmem_server.pipes import ENGINE_REQUESTS, read_message, write_message
from xmem_server.plans import (
    EngineCancelled,
    EngineDone,
    EngineFailed,
    EngineFrameFailed,
    EngineMatte,
    EnginePaused,
    EngineProgress,
    EngineReady,
    EngineRefused,
    EngineSnapshot,
    EngineSuggestions,
    Pause,
    PropagationPlan,
    SuggestionPlan,
    WrittenMatte,
)


class ScriptedEngine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self.requests: queue.Queue[Any] = queue.Queue()
        self.cancelled: set[str] = set()
        self.paused: set[str] = set()

    def script(self) -> dict[str, Any]:
        path = self.folder / "script.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def say(self, event: Any) -> None:
        try:
            write_message(self.out, event)
        except OSError:
            os._exit(1)  # the server is gone, as for the real engine

    def read(self) -> None:
        with os.fdopen(0, "rb") as stream:
            while (message := read_message(stream, ENGINE_REQUESTS)) is not None:
                if isinstance(message, Cancel):
                    self.cancelled.add(message.job)
                elif isinstance(message, Pause):
                    self.paused.add(message.job)
                else:
                    self.cancelled.discard(message.job)
                    self.paused.discard(message.job)
                    self.requests.put(message)
        os._exit(0)

    def run(self) -> None:
        script = self.script()
        with (self.folder / "starts").open("a") as starts:
            starts.write("x")
        if len((self.folder / "starts").read_text()) <= script.get("die_while_starting", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if script.get("exit_at_start"):
            os._exit(3)
        if script.get("garbage_at_start"):
            self.out.write(b"\0\0\0\5hello")
            self.out.flush()
            time.sleep(60)
        if "refuse" in script:
            self.say(EngineRefused(script["refuse"]))
        else:
            self.say(EngineReady("cpu", "scripted", "f" * 64))
        threading.Thread(target=self.read, daemon=True).start()
        while True:
            plan = self.requests.get()
            with (self.folder / "plans.jsonl").open("a") as log:
                log.write(json.dumps(dataclasses.asdict(plan)) + "\n")
            try:
                if isinstance(plan, SuggestionPlan):
                    self.suggest(plan)
                else:
                    self.propagate(plan)
            except OSError as error:
                code = "storage_full" if error.errno == errno.ENOSPC else "internal"
                self.say(EngineFailed(plan.job, code, f"A matte cannot be written: {error.strerror}."))

    def suggest(self, plan: SuggestionPlan) -> None:
        frame = plan.plates[-1].frame
        self.say(EngineSuggestions(plan.job, (Suggestion(frame, "different", 1, 0.5, "It differs most."),), ""))
        self.say(EngineDone(plan.job, "compared"))

    def propagate(self, plan: PropagationPlan) -> None:
        script = self.script()
        keys = {source.key.frame for source in plan.keys}
        frames = range(plan.settings.first, plan.settings.last + 1)
        start = int(Path(plan.snapshot).stem) + 1 if script.get("resumes") and plan.snapshot else frames[0]
        for frame in () if plan.finished else plan.playhead:
            file = self.write_matte(plan, script, frame, "provisional ")
            self.say(EngineMatte(plan.job, frame, frame in keys, (file,), is_provisional=True))
        for done, frame in enumerate(frames):
            if frame < start:
                continue
            self.say(
                EngineProgress(plan.job, "propagating", done, len(frames), frame, 1.0, 1.0, "about 0.1 GiB of memory")
            )
            self.follow_script(script, frame)
            if plan.job in self.cancelled:
                self.say(EngineCancelled(plan.job))
                return
            if script.get("fail_frame") == frame:
                self.say(EngineFrameFailed(plan.job, frame, "It cannot be read."))
            elif frame not in plan.finished:
                self.say(EngineMatte(plan.job, frame, frame in keys, (self.write_matte(plan, script, frame),)))
            is_paused = plan.job in self.paused and done + 1 < len(frames)
            time.sleep(script.get("frame_seconds", 0))
            if is_paused or (done + 1) % plan.settings.snapshot_every == 0:
                path = Path(plan.scratch) / f"{frame}.state"
                path.write_bytes(f"state after {frame}".encode())
                self.say(EngineSnapshot(plan.job, frame, str(path)))
            if is_paused:
                self.say(EnginePaused(plan.job))
                return
        if "fail" in script:
            self.say(EngineFailed(plan.job, "out_of_memory", script["fail"]))
        else:
            self.say(EngineDone(plan.job, "scripted"))

    def follow_script(self, script: dict[str, Any], frame: int) -> None:
        if script.get("die_at") == frame:
            died = self.folder / "died"
            if script.get("die_always") or not died.exists():
                died.touch()
                os._exit(9)
        while script.get("wait_at") == frame and not (self.folder / "go").exists() and not self.cancelled:
            time.sleep(0.01)

    def write_matte(self, plan: PropagationPlan, script: dict[str, Any], frame: int, kind: str = "") -> WrittenMatte:
        folder = self.folder if script.get("bad_path") else Path(plan.scratch)
        path = folder / f"{kind.strip()}1.{frame}.exr"
        content = f"{kind}matte of {frame} by {len(plan.keys)} keys".encode()
        path.write_bytes(content)
        nbytes = len(content) + (1 if script.get("wrong_size") else 0)
        return WrittenMatte(1, str(path), hashlib.sha256(content).hexdigest(), nbytes, ".exr")


if __name__ == "__main__":
    ScriptedEngine(Path(sys.argv[1])).run()
