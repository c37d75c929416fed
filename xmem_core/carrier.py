"""The masks that optical flow brings to each frame of one propagation: from the frame before it, and from the next key."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from xmem_core.motion import CARRIED_FRAMES, CarriedMasks, MotionSource, carry

Annotation = Callable[[int], Mapping[int, Tensor]]  # the padded masks (H, W) by object id at a frame number
_LEVELS = 255  # waiting masks are kept as bytes: they are a hint, and there are up to 32 frames of them


class Carrier:
    """Carries masks along; ``previous`` are those of the frame just before (H, W) by object id, set by the propagation.

    From a key they go back at most CARRIED_FRAMES frames, and only of the objects that the very next key speaks of. What a
    frame gets depends on the keys, the motion and ``previous`` alone, so that a resumed propagation gets the same.
    """

    def __init__(self, frames: tuple[int, ...], motion: MotionSource, annotation: Annotation) -> None:
        self._frames = frames
        self._motion = motion
        self._annotation = annotation
        self._keys = [position for position, frame in enumerate(frames) if annotation(frame)]
        self._waiting: dict[int, tuple[dict[int, Tensor], Tensor]] = {}  # position -> masks by object id, trust (uint8)
        self._swept = -1  # position of the key the waiting masks came from
        self.previous: dict[int, Tensor] = {}

    def fetch(self, position: int, object_ids: tuple[int, ...], like: Tensor) -> CarriedMasks:
        """Give what is carried to the frame at a position, for these objects, on the device and at the size of ``like``."""
        shape = (2, 2, len(object_ids), *like.shape[-2:])  # masks and trust, sources, N, H, W
        both = torch.zeros(shape, device=like.device)
        for source, found in enumerate((self._from_previous(position), self._from_next_key(position))):
            for place, object_id in enumerate(object_ids):
                if object_id in found:
                    both[0, source, place], both[1, source, place] = found[object_id]
        return CarriedMasks(both[:1], both[1:])

    def _from_previous(self, position: int) -> dict[int, tuple[Tensor, Tensor]]:
        if not self.previous:
            return {}
        motion = self._motion(self._frames[position - 1], self._frames[position])
        if motion is None:
            return {}
        masks = torch.stack(list(self.previous.values()))[None]
        moved, trust = carry(masks, torch.ones_like(masks[:, :1]), motion.to_later.to(masks.device)[None])
        return {object_id: (mask, trust[0, 0]) for object_id, mask in zip(self.previous, moved[0], strict=True)}

    def _from_next_key(self, position: int) -> dict[int, tuple[Tensor, Tensor]]:
        key = next((key for key in self._keys if key > position), None)
        if key is None or key - position > CARRIED_FRAMES:
            return {}
        if key != self._swept:
            self._sweep(key, position)
        if position not in self._waiting:
            return {}
        masks, levels = self._waiting.pop(position)
        trust = levels / _LEVELS
        return {object_id: (mask / _LEVELS, trust) for object_id, mask in masks.items()}

    def _sweep(self, key: int, until: int) -> None:
        """Carry a key's masks back to position ``until``, and keep what each frame on the way gets."""
        self._waiting, self._swept = {}, key
        given = self._annotation(self._frames[key])
        masks = torch.stack(list(given.values()))[None]
        trust = torch.ones_like(masks[:, :1])  # of a whole way, the same for all objects
        for position in range(key - 1, until - 1, -1):
            motion = self._motion(self._frames[position], self._frames[position + 1])
            if motion is None:
                return
            masks, trust = carry(masks, trust, motion.to_earlier.to(masks.device)[None])
            levels = [(part[0] * _LEVELS).round().to(torch.uint8) for part in (masks, trust)]
            self._waiting[position] = (dict(zip(given, levels[0], strict=True)), levels[1][0])
