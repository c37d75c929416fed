"""Nuke's main thread: the queue that other threads post to, and a watchdog over how long each call holds it."""

from __future__ import annotations

import queue
import threading
import time
import traceback

from . import state


class MainThread:
    """``pump`` plays the event loop. ``longest_hold`` is the longest one call held it, renders not counted, in seconds."""

    def __init__(self):
        self._calls = queue.Queue()
        self.errors = []
        self.longest_hold = 0.0
        self.holds = []
        self._render_seconds = 0.0

    def post(self, call):
        """Have a function called by the event loop."""
        self._calls.put(call)

    def note_render(self, seconds):
        """Take a render's time off the hold it is in."""
        self._render_seconds += seconds

    def hold(self, call):
        """Call a function as the event loop does, with the watchdog looking."""
        self._render_seconds, start = 0.0, time.perf_counter()
        try:
            return call()
        finally:
            held = time.perf_counter() - start - self._render_seconds
            self.holds.append(held)
            self.longest_hold = max(self.longest_hold, held)

    def pump(self, until=lambda: False, seconds=20.0):
        """Run what is posted until ``until()``; without a condition, until nothing is left. Fails after ``seconds``."""
        if not state.app().module.GUI:
            raise RuntimeError("nothing is known to pump the queue in nuke -t")
        has_condition = until.__name__ != "<lambda>" or until()
        deadline = time.monotonic() + seconds
        while not until():
            try:
                call = self._calls.get(timeout=0.02)
            except queue.Empty:
                if not has_condition and self._calls.empty():
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"still not so after {seconds} s of event loop") from None
                continue
            self._run(call)
            if time.monotonic() > deadline:
                raise TimeoutError(f"still not so after {seconds} s of event loop")

    def _run(self, call):
        try:
            self.hold(call)
        except Exception:  # noqa: BLE001 - as Nuke: printed, and the loop goes on; the fixture fails on it
            self.errors.append(traceback.format_exc())


def execute_in_main_thread(call, args=(), kwargs=None):
    """nuke.executeInMainThread: returns at once; a list is one argument, as in Nuke's own source."""
    args = args if type(args) is tuple else (args,)
    state.app().main_thread.post(lambda: call(*args, **(kwargs or {})))


def execute_in_main_thread_with_result(call, args=(), kwargs=None):
    """nuke.executeInMainThreadWithResult: waits; what the call raises is printed and None comes back."""
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError("executeInMainThreadWithResult on the main thread would deadlock")
    args = args if type(args) is tuple else (args,)
    done, result = threading.Event(), []

    def run():
        try:
            result.append(call(*args, **(kwargs or {})))
        finally:
            done.set()

    state.app().main_thread.post(run)
    done.wait()
    return result[0] if result else None
