"""A fixed synthetic validation set: its own seeds, pictures no training shot has, longer clips, one to three keys.

python -m training.validation WEIGHTS.safetensors ... --packed training/downloads/packed
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.bank import VALIDATION, fetch_bank
from training.clip_forward import ClipInput, ClipPlan, forward_clip
from training.loading import clip_motion
from training.losses import region_scores
from training.packages import COPYLEFT, SHARE_ALIKE, packages_with
from training.shots import ShotSettings, make_shot
from xmem_core.images import normalise
from xmem_core.network import XMem
from xmem_core.weights import load_model

FIRST_SEED = 9_000_000_000_000  # far above every training seed
CALIBRATION_SEED = 9_500_000_000_000  # clips by which nothing is chosen
FRAMES = 12
KEYS = ((0,), (0,), (0, 11), (0, 5, 11), (3,), (0, 7))  # taken in turn


@dataclass(frozen=True)
class ValidationScores:
    """Mean J (0..1) over clips and objects; with one key, with more, and of objects under 2 % of the frame."""

    overall: float
    one_key: float
    more_keys: float
    small: float


@dataclass(frozen=True)
class ValidationClip:
    """frames (T, 3, S, S) uint8, alpha (N, T, S, S) float32 0..1, motion, and its plan (every third prediction is remembered)."""

    frames: Tensor
    alpha: Tensor
    motion: Tensor
    plan: ClipPlan


def validation_clips(
    packed: Path | None, left_out: tuple[str, ...], size: int, count: int, first_seed: int = FIRST_SEED
) -> list[ValidationClip]:
    """The validation set, or one of other seeds; the same for the same arguments."""
    bank = fetch_bank(packed, VALIDATION, left_out)
    settings = ShotSettings(size, FRAMES)
    clips = []
    for number in range(count):
        keys = KEYS[number % len(KEYS)]
        shot = make_shot(first_seed + number, bank, settings, keys)
        written = frozenset(frame for frame in range(1, FRAMES, 3) if frame not in keys)
        plan = ClipPlan(FRAMES, keys, written)
        clips.append(
            ValidationClip(
                torch.from_numpy(shot.frames).permute(0, 3, 1, 2),
                torch.from_numpy(shot.alpha),
                clip_motion(shot.frames),
                plan,
            )
        )
    return clips


@torch.no_grad()
def validate(network: XMem, clips: list[ValidationClip], working: int = 0) -> ValidationScores:
    """Scores of a network on its own device that sees ``working`` pixels (0: all), J over the frames that are not given."""
    device = next(network.parameters()).device
    scores, few, small = [], [], []
    for clip in clips:
        images = normalise(clip.frames.to(device).float() / 255, network.config.mean, network.config.std)
        alpha = clip.alpha[None].to(device)
        inputs = ClipInput(images[None], (alpha > 0.5).float(), clip.motion[None].to(device), working)
        predicted = forward_clip(network, inputs, clip.plan)
        found = region_scores(predicted, alpha)[0].cpu()
        seen = ~found.isnan()
        scores.append(found[seen])
        few.append(torch.full((int(seen.sum()),), len(clip.plan.keys) == 1))
        largest = (clip.alpha > 0.5).float().mean((2, 3)).amax(1)
        small.append(largest[seen] < 0.02)
    j, one, little = torch.cat(scores), torch.cat(few), torch.cat(small)
    return ValidationScores(*(float(part.mean()) for part in (j, j[one], j[~one], j[little])))


def main() -> int:
    """0; one line of scores for each file of weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--packed", type=Path)
    parser.add_argument("--without", nargs="*", default=[], choices=(COPYLEFT, SHARE_ALIKE), help="terms to leave out")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--working", type=int, default=0, help="pixels that the network sees of --size; 0: all")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the clips; another gives another set")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clips = validation_clips(
        options.packed, packages_with(tuple(options.without)), options.size, options.clips, options.first_seed
    )
    for path in options.weights:
        scores = validate(load_model(str(path)).network, clips, options.working)
        print(
            f"{path.name}: J {scores.overall:.4f}, one key {scores.one_key:.4f}, more keys {scores.more_keys:.4f}, "
            f"small objects {scores.small:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
