"""One propagation: keys into permanent memory, then frame after frame to matte files (DESIGN section 2, the way of the data)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xmem_core.best_rows import NO_STORE
from xmem_core.engine import Engine, Propagation
from xmem_core.errors import CoreError
from xmem_core.images import harden
from xmem_core.motion import CARRIED_FRAMES
from xmem_core.snapshot import restore_snapshot, take_snapshot
from xmem_core.weights import LoadedModel
from xmem_protocol import InputError
from xmem_server.decoding import Decoder
from xmem_server.plans import EngineDone, EngineFrameFailed, EngineSnapshot, KeySource, PropagationPlan
from xmem_server.storage import sync_file, sync_folder
from xmem_server.worker.cache_folder import CacheFolder
from xmem_server.worker.channel import Channel
from xmem_server.worker.features import FeatureCache
from xmem_server.worker.host_memory import HostMemory
from xmem_server.worker.matte_summary import SummaryCache, fetch_key_size
from xmem_server.worker.matte_writer import KeyAlphas, MatteWriter
from xmem_server.worker.memory_ladder import MemoryLadder, is_out_of_memory, release_memory
from xmem_server.worker.motion_cache import MotionCache
from xmem_server.worker.preview import BeforeMattes, Preview
from xmem_server.worker.reporting import JobPausedError, Reporter
from xmem_server.worker.row_cache import RowCache
from xmem_server.worker.settings import fetch_encoding, fetch_policy, fetch_precision, fetch_working_size

log = logging.getLogger(__name__)
# Of pictures: up to so many, a second thread takes longer to wake than what torch does of a small network's steps. Nearly all of these are
# in loops of our own, which have all threads. What is narrower torch encodes, and suggestions, which have all threads, would find other
# last bits.
_SHARED_PIXELS, _SHARED_SIDE = 1_000_000, 64
_LOOK_AHEAD = CARRIED_FRAMES  # frames encoded while others are propagated: as far as masks are carried back from a key


def run_propagation(plan: PropagationPlan, model: LoadedModel, decoder: Decoder, channel: Channel) -> None:
    """Work through a plan, saying each finished frame; the last thing said is EngineDone.

    Short of memory it begins again from the plan's snapshot, less greedily; frames that were said are not said again.
    Raises InputError or CoreError when the whole job cannot be done, JobCancelledError when it is cancelled, JobPausedError
    when it makes room for another.
    """
    ladder = MemoryLadder(next(model.network.parameters()).device)
    finished = set(plan.finished)
    while True:
        attempt = dataclasses.replace(plan, finished=tuple(sorted(finished)))
        summary = _attempt(attempt, model, decoder, channel, ladder, finished)
        if summary is not None:
            channel.send(EngineDone(plan.job, summary))
            return
        ladder.climb()
        release_memory()
        log.warning("job %s was short of memory and goes on with %s", plan.job, ladder.describe())


def _attempt(
    plan: PropagationPlan,
    model: LoadedModel,
    decoder: Decoder,
    channel: Channel,
    ladder: MemoryLadder,
    finished: set[int],
) -> str | None:
    """Give one line on how the job ran, or None when memory was short; frames are added to ``finished`` as they are said."""
    try:
        with PropagationJob(plan, model, decoder, channel, ladder) as job:
            job.annotate()
            job.preview()
            job.propagate(finished)
            return job.describe()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


class PropagationJob:
    """What one propagation needs at hand. A context: it ends its threads."""

    def __init__(
        self,
        plan: PropagationPlan,
        model: LoadedModel,
        decoder: Decoder,
        channel: Channel,
        ladder: MemoryLadder,
    ) -> None:
        self._ladder = ladder
        self._plan = plan
        self._decoder = decoder
        self._channel = channel
        self._reporter = Reporter(channel, plan.job, plan.note)
        self._encoding = fetch_encoding(plan, plan.settings, model, decoder)
        self._engine = Engine(
            model.network,
            fetch_policy(plan.settings),
            fetch_precision(plan.settings),
            fetch_working_size(plan.settings, model.network.config),
            ladder.footprint,
        )
        self._folder = CacheFolder(Path(plan.cache), ladder.budget.disk_bytes)
        self._keys: dict[int, list[KeySource]] = {}
        for source in plan.keys:
            self._keys.setdefault(source.key.frame, []).append(source)
        self._alphas = KeyAlphas(plan, decoder)
        self._before = BeforeMattes(plan, decoder)
        self._device = next(model.network.parameters()).device
        plates = sorted(plate.frame for plate in plan.plates)
        self._frames = tuple(frame for frame in plates if plan.settings.first <= frame <= plan.settings.last)
        self._skipped = 0
        self._cache = FeatureCache(self._engine, decoder, plan.plates, self._encoding, self._folder, ladder.budget)
        self._motion = MotionCache(self._cache, self._folder)
        # Short of memory a frame is encoded in other company: what it finds is not what a later round would find.
        rows = RowCache(self._cache, self._folder, self._engine.policy.top_k)
        self._rows = NO_STORE if ladder.is_climbed else rows
        summaries = SummaryCache(self._folder, fetch_key_size(self._encoding))
        self._writer = MatteWriter(plan, decoder, channel, summaries, self._keys)
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> PropagationJob:
        if self._is_in_short_steps():
            self._contexts.enter_context(_torch_on_one_thread())
        for part in (self._writer, self._motion, self._cache):  # left the other way round: motion waits for features
            self._contexts.enter_context(part)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._contexts.__exit__(kind, error, trace)

    def _is_in_short_steps(self) -> bool:
        """Say whether torch works alone: loops of our own encode, and what is left to torch is little."""
        height, width = self._encoding.shape
        is_small = height * width <= _SHARED_PIXELS and self._engine.network.follows_motion
        is_ours = self._device.type == "cpu" and self._engine.precision == torch.float32
        return is_small and is_ours and min(self._encoding.working) >= _SHARED_SIDE

    def annotate(self) -> None:
        """Put every key into permanent memory, in frame order."""
        ordered = sorted(self._keys.items())
        for frame, _ in ordered:
            self._cache.look_ahead(frame)
        # Else a preview comes first, or the frames after the snapshot: these are not the first that are wanted.
        if not self._plan.playhead and not self._plan.snapshot:
            self._look_ahead(range(min(len(self._frames), _LOOK_AHEAD + 1)))
        for done, (frame, sources) in enumerate(ordered):
            self._reporter.report("annotating", done, len(ordered), frame)
            alphas = {source.key.object_id: torch.from_numpy(self._alphas.fetch(source)) for source in sources}
            try:
                masks = harden(alphas, self._encoding.shape, self._plan.settings.threshold)
            except CoreError as error:
                raise InputError(f"Frame {frame}: {error}") from None
            encoded = self._cache.fetch(frame)
            name = ["value", self._cache.name(frame), [digest_mask(masks[object_id]) for object_id in sorted(masks)]]
            known = self._folder.load(name, self._device) or {}
            on_device = {object_id: mask.to(self._device) for object_id, mask in masks.items()}
            value = self._engine.annotate(frame, encoded, on_device, known.get("value"))
            if value is not None and not known:  # only what the artist changed is encoded again in the next round
                self._folder.save(name, {"value": value})

    def preview(self) -> None:
        """Show the playhead's neighbourhood, if there is one and the job is fresh; what is shown is replaced by `propagate`."""
        if self._plan.snapshot or self._plan.finished:
            return
        preview = Preview(self._engine, self._cache, self._motion, self._before.fetch)
        for playhead in self._plan.playhead[:1]:
            self._reporter.report("previewing", 0, 0, playhead)
            for done, result in enumerate(
                preview.run(min(max(playhead, self._frames[0]), self._frames[-1]), self._frames)
            ):
                self._writer.put_provisional(result)
                self._reporter.report("previewing", done + 1, 0, result.frame)
                if self._channel.paused(self._plan.job):
                    return

    def propagate(self, finished: set[int]) -> None:
        """Step through the range, write what is not ``finished`` and add it there, and leave a snapshot now and then."""
        settings, frames = self._plan.settings, self._frames
        propagation = self._engine.start(frames, self._motion.fetch, self._rows)
        self._resume(propagation)
        host_memory = HostMemory()
        looked = propagation.position  # all frames before it are being encoded
        for position in range(propagation.position, len(frames)):
            frame = frames[position]
            self._reporter.report("propagating", position, len(frames), frame)
            soon = min(len(frames), position + _LOOK_AHEAD + 1)
            self._look_ahead(range(looked, soon))
            looked = soon
            try:
                encoded = self._cache.fetch(frame)
            except InputError as error:
                self._channel.send(EngineFrameFailed(self._plan.job, frame, str(error)))
                propagation.skip()
                continue
            result = propagation.step(encoded)
            if frame not in finished:
                self._writer.put(result, finished)
            host_memory.look()
            is_paused = self._channel.paused(self._plan.job)
            if position + 1 < len(frames) and (is_paused or (position + 1) % settings.snapshot_every == 0):
                self._writer.drain()  # a snapshot stands for frames that are finished
                is_kept = self._save_snapshot(frame, propagation)
                if is_paused and is_kept:  # without a snapshot the job would begin again each time: it goes on instead
                    raise JobPausedError
        self._writer.drain()
        self._skipped = len(propagation.skipped)
        self._reporter.report("propagating", len(frames), len(frames), frames[-1])

    def _look_ahead(self, places: range) -> None:
        """Have frames encoded, and motion measured, that will be wanted soon."""
        for place in places:
            self._cache.look_ahead(self._frames[place])
            if place and self._engine.network.follows_motion:
                self._motion.look_ahead(*self._frames[place - 1 : place + 1])

    def _resume(self, propagation: Propagation) -> None:
        """Put the propagation where the plan's snapshot left it, if every frame before is finished."""
        if not self._plan.snapshot:
            return
        fresh = take_snapshot(propagation)
        reason = self._restore(propagation)
        if reason:
            log.warning("snapshot ignored (%s): the job starts from its first frame", reason)
            restore_snapshot(propagation, fresh, self._device)

    def _restore(self, propagation: Propagation) -> str:
        """Put the propagation where the plan's snapshot left it; give why that cannot be, empty when it can."""
        try:
            restore_snapshot(propagation, load_file(self._plan.snapshot), self._device)
        except (SafetensorError, OSError, CoreError, KeyError) as error:
            return str(error)
        expected = fetch_key_size(self._encoding)
        if any(tuple(hidden.shape[-2:]) != expected for hidden in propagation.hidden.values()):
            return "it is of another working size"
        passed = set(propagation.frames[: propagation.position])
        if not passed <= {*self._plan.finished, *propagation.skipped}:
            return "a frame before it has no mattes"
        return ""

    def _save_snapshot(self, frame: int, propagation: Propagation) -> bool:
        """Write the state after a frame, flushed; say whether it is there. A full disk costs the snapshot, not the job."""
        path = Path(self._plan.scratch) / f"snapshot.{frame}.safetensors"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            save_file(take_snapshot(propagation), temporary)
            with temporary.open("rb") as written:
                sync_file(written)
            temporary.replace(path)
            sync_folder(path.parent)
        except (OSError, SafetensorError) as error:
            log.warning("no snapshot after frame %d: %s", frame, error)
            temporary.unlink(missing_ok=True)
            return False
        self._channel.send(EngineSnapshot(self._plan.job, frame, str(path)))
        return True

    def _describe_finer(self) -> str:
        height, width = self._encoding.shape
        return "" if self._encoding.shape == self._encoding.working else f", mattes at {width}x{height},"

    def _describe_colour(self) -> str:
        colorspace = self._plan.shot.colorspace
        return self._decoder.describe_transform(colorspace, self._writer.kind) if self._writer.kind else colorspace

    def describe(self) -> str:
        """Give one line on how the job ran: sizes, colour, memory, what was encoded."""
        height, width = self._encoding.working
        shot, settings = self._plan.shot, self._plan.settings
        skipped = f"; {self._skipped} frames could not be read" if self._skipped else ""
        need = f"; {self._plan.note}" if self._plan.note else ""
        short = f"; memory was short: {self._ladder.describe()}" if self._ladder.is_climbed else ""
        return (
            f"worked at {width}x{height} of {shot.width}x{shot.height}{self._describe_finer()} "
            f"on {self._device}, {settings.precision}; "
            f"colour: {self._describe_colour()}; permanent memory: {settings.permanent}, "
            f"{len(self._keys)} keyed frames; {self._cache.encoded_count} frames encoded{skipped}{need}{short}"
        )


@contextlib.contextmanager
def _torch_on_one_thread() -> Iterator[None]:
    """Have torch work on one thread here, and on those that begin meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def digest_mask(mask: Tensor) -> str:
    """Give what a mask (H, W) is known by."""
    return hashlib.sha256(mask.numpy().tobytes()).hexdigest()
