"""The masks that optical flow brings to each frame of one propagation: from the frame before it, and from the next key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from xmem_core.motion import CARRIED_FRAMES, MotionSource, carry, weigh

Annotation = Callable[[int], Mapping[int, Tensor]]  # the padded masks (H, W) by object id at a frame number
# Object ids, their masks (n, H, W), the trust in all of them (1, H, W).
Carried = tuple[tuple[int, ...], Tensor, Tensor]
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
        # By position: object ids, and their masks with the trust in all of them as the last, (n + 1, H, W) uint8.
        self._waiting: dict[int, tuple[tuple[int, ...], Tensor]] = {}
        self._swept = -1  # position of the key the waiting masks came from
        self.previous: dict[int, Tensor] = {}

    def fetch(self, position: int, object_ids: tuple[int, ...], like: Tensor) -> Tensor:
        """Give what is carried to the frame at a position says of these objects, (1, N, H, W) log-odds as `FrameContext` has them.

        On the device and at the size of ``like``. What comes from the frame before and from the next key is added up.
        """
        total = torch.zeros((len(object_ids), *like.shape[-2:]), device=like.device)
        for ids, masks, trust in (*self._from_previous(position), *self._from_next_key(position)):
            said = weigh(masks, trust)
            if ids == object_ids:
                total += said
                continue
            for object_id, part in zip(ids, said, strict=True):
                if object_id in object_ids:
                    total[object_ids.index(object_id)] += part
        return total[None]

    def _from_previous(self, position: int) -> Iterator[Carried]:
        if not self.previous:
            return
        motion = self._motion(self._frames[position - 1], self._frames[position])
        if motion is None:
            return
        masks = torch.stack(list(self.previous.values()))[None]
        moved, trust = carry(masks, torch.ones_like(masks[:, :1]), motion.to_later.to(masks.device)[None])
        yield tuple(self.previous), moved[0], trust[0]

    def _from_next_key(self, position: int) -> Iterator[Carried]:
        key = next((key for key in self._keys if key > position), None)
        if key is None or key - position > CARRIED_FRAMES:
            return
        if key != self._swept:
            self._sweep(key, position)
        if position in self._waiting:
            object_ids, levels = self._waiting.pop(position)
            parts = levels / _LEVELS  # (n + 1, H, W): masks, then their trust
            yield object_ids, parts[:-1], parts[-1:]

    def _sweep(self, key: int, until: int) -> None:
        """Carry a key's masks back to position ``until``, and keep what each frame on the way gets."""
        self._waiting, self._swept = {}, key
        given = self._annotation(self._frames[key])
        masks = torch.stack(list(given.values()))[None]
        trust = torch.ones_like(masks[:, :1])  # of a whole way, the same for all objects
        # All in one piece: one by one they would lie between what comes and goes meanwhile, and leave holes behind.
        shape = (key - until, len(given) + 1, *masks.shape[-2:])
        levels = torch.empty(shape, dtype=torch.uint8, device=masks.device)
        for position in range(key - 1, until - 1, -1):
            motion = self._motion(self._frames[position], self._frames[position + 1])
            if motion is None:
                return
            masks, trust = carry(masks, trust, motion.to_earlier.to(masks.device)[None])
            here = levels[position - until]
            here[:-1], here[-1:] = (masks[0] * _LEVELS).round_(), (trust[0] * _LEVELS).round_()
            self._waiting[position] = (tuple(given), here)
