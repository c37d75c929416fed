"""Mattes to files on a thread of its own: while a frame is enlarged, written and flushed, the next one is propagated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmem_core.engine import FrameResult
from xmem_core.mattes import make_mattes
from xmem_protocol import PRESENT, InputError
from xmem_server.checks import name_key
from xmem_server.decoding import Decoder
from xmem_server.headers import EXR_FLOAT, EXR_HALF, PNG16, Header, say_which
from xmem_server.plans import EngineMatte, KeySource, MatteSource, PlateSource, PropagationPlan, WrittenMatte
from xmem_server.worker.background import BackgroundOwner
from xmem_server.worker.channel import Channel
from xmem_server.worker.matte_summary import SummaryCache, summarise

SUFFIXES = {EXR_HALF: ".exr", EXR_FLOAT: ".exr", PNG16: ".png"}
LAYERED = "layered"
_WAITING = 2  # results that may wait to be written
_LEVELS = 65535  # of a 16-bit PNG

Alphas = Mapping[int, Tensor]  # (H, W) by object id


class KeyAlphas:
    """The artist's alphas of a plan's keys, as drawn."""

    def __init__(self, plan: PropagationPlan, decoder: Decoder) -> None:
        self._shape = (plan.shot.height, plan.shot.width)
        self._decoder = decoder

    def fetch(self, source: KeySource) -> npt.NDArray[np.float32]:
        """Give a key's alpha (H, W); all 0 where the object is absent. Raises InputError."""
        if source.key.presence != PRESENT:
            return np.zeros(self._shape, np.float32)
        try:
            return self._decoder.fetch_alpha(source.path, source.key.suffix, source.key.selector)
        except InputError as error:
            raise say_which(name_key(source.key), error) from None


class MatteWriter(BackgroundOwner):
    """Writes results in the order in which they come, and says each on the channel. A context: what waits at its end is dropped."""

    def __init__(
        self,
        plan: PropagationPlan,
        decoder: Decoder,
        channel: Channel,
        summaries: SummaryCache,
        keys: Mapping[int, Sequence[KeySource]],
    ) -> None:
        super().__init__()
        self._plan = plan
        self._decoder = decoder
        self._channel = channel
        self._summaries = summaries
        self._keys = keys
        self._alphas = KeyAlphas(plan, decoder)
        self._plates = {plate.frame: plate for plate in plan.plates}
        self._pool = self.start_background("mattes")
        self._waiting: deque[Future[None]] = deque()
        self.kind = ""  # of the plates, once one has been seen

    def put(self, result: FrameResult, finished: set[int]) -> None:
        """Have a frame written; it is added to ``finished`` once it has been said. Raises what an earlier one met."""
        while len(self._waiting) >= _WAITING:
            self._waiting.popleft().result()

        def work() -> None:
            files = self._write(result, "")
            self._channel.send(EngineMatte(self._plan.job, result.frame, result.annotated, files))
            finished.add(result.frame)

        self._waiting.append(self._pool.submit(work))

    def put_provisional(self, result: FrameResult) -> None:
        """Write a frame of the preview, now, and say it as what it is."""
        self.drain()
        files = self._write(result, "provisional.")
        self._channel.send(EngineMatte(self._plan.job, result.frame, result.annotated, files, is_provisional=True))

    def drain(self) -> None:
        """Wait until all is written. Raises what went wrong."""
        while self._waiting:
            self._waiting.popleft().result()

    def _write(self, result: FrameResult, prefix: str) -> tuple[WrittenMatte, ...]:
        header = self._fetch_plate_header(self._plates[result.frame])
        output = self._plan.settings.output
        mattes = round_samples(make_mattes(result.probabilities, header.height, header.width), output).cpu()
        alphas = dict(zip(result.object_ids, mattes, strict=True))
        for source in self._keys.get(result.frame, ()):  # the artist's own alpha, not what the network made of it
            alphas[source.key.object_id] = round_samples(torch.from_numpy(self._alphas.fetch(source)), output)
        files = tuple(self._write_files(f"{prefix}{result.frame}", alphas, header))
        if not prefix:
            self._summarise(files, alphas)
        return files

    def _fetch_plate_header(self, plate: PlateSource) -> Header:
        header = self._decoder.fetch_header(plate.path, plate.suffix)
        self.kind = header.kind
        return header

    def _write_files(self, name: str, alphas: Alphas, header: Header) -> Iterator[WrittenMatte]:
        settings = self._plan.settings
        suffix = SUFFIXES[settings.output]
        if settings.layout == LAYERED:
            path = str(Path(self._plan.scratch) / f"{name}.layered{suffix}")
            layers = {object_id: alpha.numpy() for object_id, alpha in alphas.items()}
            written = self._decoder.save_layered(path, layers, header, settings.output)
            yield WrittenMatte(0, path, written.sha256, written.nbytes, suffix)
            return
        for object_id, alpha in alphas.items():
            path = str(Path(self._plan.scratch) / f"{name}.{object_id}{suffix}")
            written = self._decoder.save_matte(path, alpha.numpy(), header, settings.output)
            yield WrittenMatte(object_id, path, written.sha256, written.nbytes, suffix)

    def _summarise(self, files: Sequence[WrittenMatte], alphas: Alphas) -> None:
        ids = sorted(alphas)
        shas = {file.object_id: file.sha256 for file in files}
        stored = as_stored(torch.stack([alphas[object_id] for object_id in ids]), self._plan.settings.output)
        names = [(shas.get(object_id, shas.get(0, "")), object_id) for object_id in ids]
        self._summaries.save(names, summarise(stored, self._summaries.key_size))


def fetch_matte(decoder: Decoder, source: MatteSource, layout: str) -> npt.NDArray[np.float32]:
    """Give a stored matte (H, W). Raises InputError when it cannot be read."""
    selector = f"channel:object_{source.object_id}.A" if layout == LAYERED else "channel:auto"
    return decoder.fetch_alpha(source.path, source.suffix, selector)


def round_samples(alphas: Tensor, output: str) -> Tensor:
    """Give alphas as the samples of their files: float16 where those are, which torch rounds many times faster than numpy."""
    return alphas.half() if output == EXR_HALF else alphas


def as_stored(alphas: Tensor, output: str) -> Tensor:
    """Give alphas (N, H, W) 0..1 as their files give them back."""
    if output == PNG16:
        return ((alphas.double() * _LEVELS).round() / _LEVELS).float()
    return round_samples(alphas, output)
