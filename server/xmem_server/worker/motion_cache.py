"""Motion between neighbouring frames, measured once a shot: a few pairs in host memory in front of the disk tier."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import torch

from xmem_core.motion import CARRIED_FRAMES, PairMotion
from xmem_protocol import InputError
from xmem_server.worker.background import BackgroundOwner
from xmem_server.worker.cache_folder import CacheFolder
from xmem_server.worker.features import FeatureCache
from xmem_server.worker.optical_flow import measure_motion

PAIRS_KEPT = 2 * CARRIED_FRAMES  # in host memory: the way back from a key, and the frames just passed
FLOW = "dis-polynomials-refined-1"  # changes with whatever changes the measured motion
FIELDS = ("to_later", "to_earlier")
Pair = tuple[int, int]  # an earlier and a later frame number


class MotionCache(BackgroundOwner):
    """Motion between the frames of a feature cache, measured on the images that are kept there. A context: it ends its thread."""

    def __init__(self, features: FeatureCache, folder: CacheFolder) -> None:
        super().__init__()
        self._features = features
        self._folder = folder
        self._motion: OrderedDict[Pair, PairMotion] = OrderedDict()
        self._measuring = self.start_background("motion")
        self._coming: dict[Pair, Future[PairMotion | None]] = {}

    def fetch(self, earlier: int, later: int) -> PairMotion | None:
        """Give the motion between two frames that follow each other, half precision; None when one of them cannot be read."""
        pair = (earlier, later)
        found = self._motion.get(pair) or self._begin(pair).result()
        self._coming.pop(pair, None)
        if found is None:
            return None
        self._motion[pair] = found
        self._motion.move_to_end(pair)
        while len(self._motion) > PAIRS_KEPT:
            self._motion.popitem(last=False)
        return found

    def look_ahead(self, earlier: int, later: int) -> None:
        """Begin measuring the motion between two frames that follow each other: it will be asked for soon."""
        pair = (earlier, later)
        if pair not in self._motion:
            self._begin(pair)

    def _begin(self, pair: Pair) -> Future[PairMotion | None]:
        if pair not in self._coming:
            self._coming[pair] = self._measuring.submit(self._find, pair)
        return self._coming[pair]

    def _find(self, pair: Pair) -> PairMotion | None:
        return self._load(pair) or self._measure(pair)

    def fetch_reversed(self, later: int, earlier: int) -> PairMotion | None:
        """Give the motion for a propagation that runs backwards: from a later frame to the one before it."""
        found = self.fetch(earlier, later)
        return None if found is None else PairMotion(found.to_earlier, found.to_later)

    def _name(self, pair: Pair) -> list[str]:
        return [FLOW, *(self._features.name(frame) for frame in pair)]

    def _load(self, pair: Pair) -> PairMotion | None:
        tensors = self._folder.load(self._name(pair), torch.device("cpu"))
        if tensors is None or tensors.keys() != set(FIELDS):
            return None
        return PairMotion(**tensors)

    def _measure(self, pair: Pair) -> PairMotion | None:
        try:
            pictures = [self._fetch_grey(frame) for frame in pair]
        except InputError:
            return None
        measured = measure_motion(*pictures)
        tensors = {name: torch.from_numpy(each).half() for name, each in zip(FIELDS, measured, strict=True)}
        self._folder.save(self._name(pair), tensors)
        # As its file has it: kept where it was computed, it would leave a hole among what comes and goes meanwhile.
        return self._load(pair) or PairMotion(**tensors)

    def _fetch_grey(self, frame: int) -> npt.NDArray[np.uint8]:
        """Give a frame as the flow sees it: (H, W) grey, from what is kept with its features."""
        grey: npt.NDArray[np.uint8] = self._features.fetch(frame).image[0, 0].cpu().numpy()
        return grey
