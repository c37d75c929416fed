"""One propagation: keys into permanent memory, then frame after frame to matte files (DESIGN section 2, the way of the data)."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xmem_core.engine import Engine, FrameResult, Propagation
from xmem_core.errors import CoreError
from xmem_core.images import harden
from xmem_core.mattes import make_mattes
from xmem_core.snapshot import restore_snapshot, take_snapshot
from xmem_core.weights import LoadedModel
from xmem_protocol import PRESENT, InputError
from xmem_server.checks import name_key
from xmem_server.decoding import Decoder
from xmem_server.files import sync_file, sync_folder
from xmem_server.headers import Header, say_which
from xmem_server.plans import (
    EngineDone,
    EngineFrameFailed,
    EngineMatte,
    EngineSnapshot,
    KeySource,
    PlateSource,
    PropagationPlan,
    WrittenMatte,
)
from xmem_server.worker.channel import Channel
from xmem_server.worker.features import FeatureCache
from xmem_server.worker.memory_ladder import MemoryLadder, is_out_of_memory, release_memory
from xmem_server.worker.reporting import JobPausedError, Reporter
from xmem_server.worker.settings import fetch_encoding, fetch_policy, fetch_precision, fetch_working_size

log = logging.getLogger(__name__)
SUFFIXES = {"exr-half": ".exr", "exr-float": ".exr", "png16": ".png"}
LAYERED = "layered"


def run_propagation(plan: PropagationPlan, model: LoadedModel, decoder: Decoder, channel: Channel) -> None:
    """Work through a plan, saying each finished frame; the last thing said is EngineDone.

    Short of memory it begins again from the plan's snapshot, less greedily; frames that were said are not said again.
    Raises InputError or CoreError when the whole job cannot be done, JobCancelledError when it is cancelled, JobPausedError
    when it makes room for another.
    """
    ladder = MemoryLadder(next(model.network.parameters()).device)
    finished = set(plan.finished)
    while True:
        job: PropagationJob | None = None
        try:
            job = PropagationJob(
                dataclasses.replace(plan, finished=tuple(sorted(finished))), model, decoder, channel, ladder
            )
            job.annotate()
            job.propagate(finished)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            channel.send(EngineDone(plan.job, job.describe()))
            return
        job = None  # lets go of all that the attempt held
        ladder.climb()
        release_memory()
        log.warning("job %s was short of memory and goes on with %s", plan.job, ladder.describe())


class PropagationJob:
    """What one propagation needs at hand."""

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
        self._reporter = Reporter(channel, plan.job)
        self._encoding = fetch_encoding(plan, plan.settings, model, decoder)
        self._engine = Engine(
            model.network,
            fetch_policy(plan.settings),
            fetch_precision(plan.settings),
            fetch_working_size(plan.settings, model.network.config),
            ladder.footprint,
        )
        self._cache = FeatureCache(self._engine, decoder, plan.plates, self._encoding, Path(plan.cache), ladder.budget)
        self._plates = {plate.frame: plate for plate in plan.plates}
        self._keys: dict[int, list[KeySource]] = {}
        for source in plan.keys:
            self._keys.setdefault(source.key.frame, []).append(source)
        self._device = next(model.network.parameters()).device
        self._skipped = 0
        self._kind = ""

    def annotate(self) -> None:
        """Put every key into permanent memory, in frame order."""
        for done, (frame, sources) in enumerate(sorted(self._keys.items())):
            self._reporter.report("annotating", done, len(self._keys), frame)
            alphas = {source.key.object_id: torch.from_numpy(self._fetch_alpha(source)) for source in sources}
            try:
                masks = harden(alphas, self._encoding.shape, self._plan.settings.threshold)
            except CoreError as error:
                raise InputError(f"Frame {frame}: {error}") from None
            on_device = {object_id: mask.to(self._device) for object_id, mask in masks.items()}
            self._engine.annotate(frame, self._cache.fetch(frame), on_device)

    def _fetch_alpha(self, source: KeySource) -> npt.NDArray[np.float32]:
        """Give a key's alpha (H, W) as the artist drew it; all 0 where the object is absent."""
        if source.key.presence != PRESENT:
            return np.zeros((self._plan.shot.height, self._plan.shot.width), np.float32)
        try:
            return self._decoder.fetch_alpha(source.path, source.key.suffix, source.key.selector)
        except InputError as error:
            raise say_which(name_key(source.key), error) from None

    def propagate(self, finished: set[int]) -> None:
        """Step through the range, write what is not ``finished`` and add it there, and leave a snapshot now and then."""
        settings = self._plan.settings
        frames = tuple(frame for frame in sorted(self._plates) if settings.first <= frame <= settings.last)
        propagation = self._engine.start(frames, self._cache.fetch_motion)
        self._resume(propagation)
        for position in range(propagation.position, len(frames)):
            frame = frames[position]
            self._reporter.report("propagating", position, len(frames), frame)
            try:
                encoded = self._cache.fetch(frame)
            except InputError as error:
                self._channel.send(EngineFrameFailed(self._plan.job, frame, str(error)))
                propagation.skip()
                continue
            result = propagation.step(encoded)
            if frame not in finished:
                self._write(result)
                finished.add(frame)
            is_paused = self._channel.paused(self._plan.job)
            if position + 1 < len(frames) and (is_paused or (position + 1) % settings.snapshot_every == 0):
                is_kept = self._save_snapshot(frame, propagation)
                if is_paused and is_kept:  # without a snapshot the job would begin again each time: it goes on instead
                    raise JobPausedError
        self._skipped = len(propagation.skipped)
        self._reporter.report("propagating", len(frames), len(frames), frames[-1])

    def _resume(self, propagation: Propagation) -> None:
        """Put the propagation where the plan's snapshot left it, if every frame before is finished."""
        if not self._plan.snapshot:
            return
        fresh = take_snapshot(propagation)
        try:
            restore_snapshot(propagation, load_file(self._plan.snapshot), self._device)
        except (SafetensorError, OSError, CoreError, KeyError) as error:
            log.warning("snapshot ignored (%s): the job starts from its first frame", error)
            restore_snapshot(propagation, fresh, self._device)
            return
        passed = set(propagation.frames[: propagation.position])
        if not passed <= {*self._plan.finished, *propagation.skipped}:
            log.warning("snapshot ignored: a frame before it has no mattes; the job starts from its first frame")
            restore_snapshot(propagation, fresh, self._device)

    def _write(self, result: FrameResult) -> None:
        plate = self._plates[result.frame]
        header = self._fetch_plate_header(plate)
        mattes = make_mattes(result.probabilities, header.height, header.width).cpu().numpy()
        alphas = dict(zip(result.object_ids, mattes, strict=True))
        for source in self._keys.get(result.frame, ()):  # the artist's own alpha, not what the network made of it
            alphas[source.key.object_id] = self._fetch_alpha(source)
        files = tuple(self._write_files(result.frame, alphas, header))
        self._channel.send(EngineMatte(self._plan.job, result.frame, result.annotated, files))

    def _fetch_plate_header(self, plate: PlateSource) -> Header:
        header = self._decoder.fetch_header(plate.path, plate.suffix)
        self._kind = header.kind
        return header

    def _write_files(
        self, frame: int, alphas: dict[int, npt.NDArray[np.float32]], header: Header
    ) -> Iterator[WrittenMatte]:
        settings = self._plan.settings
        suffix = SUFFIXES[settings.output]
        if settings.layout == LAYERED:
            path = str(Path(self._plan.scratch) / f"{frame}.layered{suffix}")
            written = self._decoder.save_layered(path, alphas, header, settings.output)
            yield WrittenMatte(0, path, written.sha256, written.nbytes, suffix)
            return
        for object_id, alpha in alphas.items():
            path = str(Path(self._plan.scratch) / f"{frame}.{object_id}{suffix}")
            written = self._decoder.save_matte(path, alpha, header, settings.output)
            yield WrittenMatte(object_id, path, written.sha256, written.nbytes, suffix)

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

    def describe(self) -> str:
        """Give one line on how the job ran: sizes, colour, memory, what was encoded."""
        height, width = self._encoding.working
        shot, settings = self._plan.shot, self._plan.settings
        colour = self._decoder.describe_transform(shot.colorspace, self._kind) if self._kind else shot.colorspace
        skipped = f"; {self._skipped} frames could not be read" if self._skipped else ""
        short = f"; memory was short: {self._ladder.describe()}" if self._ladder.describe() else ""
        return (
            f"worked at {width}x{height} of {shot.width}x{shot.height}{self._describe_finer()} "
            f"on {self._device}, {settings.precision}; "
            f"colour: {colour}; permanent memory: {settings.permanent}, "
            f"{len(self._keys)} keyed frames; {self._cache.encoded_count} frames encoded{skipped}{short}"
        )
