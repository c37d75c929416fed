r"""Train the compact network on synthetic clips; stop and go on at any time.

    python -m training.train --out training/runs/NAME --init training/runs/pilot_start.safetensors \
        --packed training/downloads/packed --minutes 70
    python -m training.train --out training/runs/NAME ... --resume

The folder gets ``settings.json``, ``log.csv`` (every few steps), ``validation.csv`` (every checkpoint), ``checkpoint.pt`` (everything
needed to go on), ``ema_MMM.safetensors`` (half floats, averaged weights after MMM minutes) and ``best.safetensors``.
The learning rate falls along a cosine over ``--steps`` or over ``--minutes``, whichever ends first. Two runs by steps alone and with the
same settings see the same clips and give the same curve up to rounding; by minutes, the learning rate depends on the machine.
``--stop-after N`` ends a run early without changing its learning rates: its curve is the beginning of the whole run's.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.clip_forward import ClipInput, forward_clip, plan_clip
from training.loading import ClipSource, step_loader
from training.losses import clip_loss, region_scores
from training.mixed import BFLOAT16, FLOAT32, fix_depthwise, precision_context
from training.packages import COPYLEFT, SHARE_ALIKE, packages_with
from training.shots import ShotSettings
from training.validation import validate, validation_clips
from xmem_core.images import normalise
from xmem_core.network import COMPACT, XMem, build_network
from xmem_core.weights import load_model, save_model

FROZEN_BLOCKS = (
    3  # of the pretrained backbone, to stride 4: edges and colours need no more training, and it saves a fifth
)
CLIP_NORM = 3.0
WARM_UP = 40  # steps
LAST_SHARE = 0.03  # of the learning rate, at the end of the cosine
BOOTSTRAP_START, BOOTSTRAP_END, HARDEST = 100, 600, 0.2  # cross-entropy narrows to the worst fifth of the pixels


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a run. ``minutes`` 0 means no limit by the clock.

    Shots are ``size`` pixels to a side; the network sees ``working`` of them (0: all), and gives mattes at ``size``.

    ``encoder_share`` is the pretrained backbone's factor of the learning rate; 0 leaves it as it is.
    """

    out: Path
    init: Path | None = None
    packed: Path | None = None
    left_out: tuple[str, ...] = ()
    size: int = 256
    working: int = 0
    frames: int = 5
    objects: int = 2
    batch: int = 4
    steps: int = 100_000
    stop_after: int = 0  # steps; 0 goes to the end
    minutes: float = 0.0
    rate: float = 2e-4
    encoder_share: float = 0.3
    decay: float = 0.01
    ema: float = 0.99
    seed: int = 1
    checkpoint_minutes: float = 10.0
    log_every: int = 10
    validation_clips: int = 24
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    precision: str = FLOAT32

    @property
    def clips(self) -> ClipSource:
        """Where this run's clips come from."""
        shot = ShotSettings(self.size, self.frames, self.objects)
        return ClipSource(self.packed, self.left_out, shot, self.batch, self.seed)


@dataclass
class TrainState:
    """What a run is made of between two steps."""

    network: XMem
    optimiser: torch.optim.AdamW
    ema: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    recent: list[dict[str, float]] = field(default_factory=list)


def start_state(settings: TrainSettings) -> TrainState:
    """The state before the first step: weights from ``init`` (random without it), the backbone's first blocks frozen."""
    torch.manual_seed(settings.seed)
    network = load_model(str(settings.init)).network if settings.init else build_network(COMPACT)
    network.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.requires_grad_()
    encoder = network.key_encoder
    for part in (encoder.stem, *list(encoder.blocks)[:FROZEN_BLOCKS]):  # type: ignore[arg-type]
        part.requires_grad_(requires_grad=False)
    fix_depthwise(network)
    if settings.encoder_share == 0:
        network.key_encoder.requires_grad_(requires_grad=False)
    pretrained = [value for value in network.key_encoder.parameters() if value.requires_grad]
    known = {id(value) for value in pretrained}
    rest = [value for value in network.parameters() if value.requires_grad and id(value) not in known]
    groups = [{"params": pretrained, "share": settings.encoder_share}, {"params": rest, "share": 1.0}]
    optimiser = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=settings.decay)
    return TrainState(network, optimiser, {key: value.clone() for key, value in network.state_dict().items()})


def progress(settings: TrainSettings, state: TrainState) -> float:
    """How far the run is, 0..1, by steps or by the clock, whichever is further."""
    by_clock = state.seconds / 60 / settings.minutes if settings.minutes else 0.0
    return min(1.0, max(state.step / settings.steps, by_clock))


def learning_rate(settings: TrainSettings, state: TrainState) -> float:
    """The learning rate of the next step: linear warm-up, then a cosine down to 3 %."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress(settings, state)))
    return settings.rate * min(1.0, (state.step + 1) / WARM_UP) * (LAST_SHARE + (1 - LAST_SHARE) * cosine)


def train_step(settings: TrainSettings, state: TrainState, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """One step on frames (B, T, 3, S, S), alpha (B, N, T, S, S), both uint8, and motion; changes ``state``, gives what to log.

    A step whose gradient is not finite changes nothing but the count.
    """
    rate = learning_rate(settings, state)
    for group in state.optimiser.param_groups:
        group["lr"] = rate * group["share"]
    config = state.network.config
    frames, alpha, motion = batch
    images = normalise(frames.to(settings.device).flatten(0, 1).float() / 255, config.mean, config.std)
    images = images.unflatten(0, frames.shape[:2])
    target = alpha.to(settings.device).float() / 255
    plan = plan_clip((settings.seed, state.step), settings.frames)
    with precision_context(settings.precision, settings.device):
        inputs = ClipInput(images, (target > 0.5).float(), motion.to(settings.device), settings.working)
        predicted = forward_clip(state.network, inputs, plan)
    span = (state.step - BOOTSTRAP_START) / (BOOTSTRAP_END - BOOTSTRAP_START)
    share = 1 - (1 - HARDEST) * min(1.0, max(0.0, span))
    loss = clip_loss(predicted, target, share)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), CLIP_NORM)
    if torch.isfinite(norm):
        state.optimiser.step()
    _average(state, settings.ema)
    state.step += 1
    j = region_scores(predicted, target).nanmean()
    return {"loss": loss.item(), "j": float(j), "norm": float(norm), "rate": rate}


@torch.no_grad()
def _average(state: TrainState, decay: float) -> None:
    """Move the averaged weights; faster in the first steps, so that the average does not stick to the start."""
    keep = min(decay, (10 + state.step) / (20 + state.step))
    for key, value in state.network.state_dict().items():
        state.ema[key].lerp_(value, 1 - keep)


def save_checkpoint(path: Path, state: TrainState) -> None:
    """Write everything a run needs to go on, to a temporary name first."""
    content = {
        "network": state.network.state_dict(),
        "ema": state.ema,
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
        "best": state.best,
        "rng": torch.get_rng_state(),
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def load_checkpoint(path: Path, state: TrainState) -> None:
    """Put a run back to where its checkpoint was written. Raises FileNotFoundError when there is none."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    state.network.load_state_dict(content["network"])
    for key, value in content["ema"].items():
        state.ema[key].copy_(value)
    state.optimiser.load_state_dict(content["optimiser"])
    state.step, state.seconds, state.best = content["step"], content["seconds"], content["best"]
    torch.set_rng_state(content["rng"])


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add one line to a CSV file, with the header first when the file is new."""
    is_new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow({key: round(value, 6) for key, value in row.items()})


def export_ema(settings: TrainSettings, state: TrainState) -> Path:
    """The file the averaged weights were written to."""
    path = settings.out / f"ema_{round(state.seconds / 60):03d}.safetensors"
    notes = {
        "step": str(state.step),
        "seed": str(settings.seed),
        "init": settings.init.name if settings.init else "none",
    }
    save_model(path, state.ema, state.network.config, notes)
    return path


def record(settings: TrainSettings, state: TrainState, clips: list[Any]) -> None:
    """Checkpoint, export and validate; the best export so far is kept as best.safetensors."""
    exported = export_ema(settings, state)
    if clips:
        averaged = load_model(str(exported)).network.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        scores = validate(averaged, clips, settings.working)
        append_row(
            settings.out / "validation.csv", {"step": state.step, "minutes": state.seconds / 60, **asdict(scores)}
        )
        print(f"step {state.step}: validation J {scores.overall:.4f} ({exported.name})", flush=True)
        if scores.overall > state.best:
            state.best = scores.overall
            shutil.copyfile(exported, settings.out / "best.safetensors")
    save_checkpoint(settings.out / "checkpoint.pt", state)


def log_recent(settings: TrainSettings, state: TrainState) -> None:
    """Write the mean of the steps since the last line."""
    rows, state.recent = state.recent, []
    means = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    append_row(settings.out / "log.csv", {"step": state.step, "minutes": state.seconds / 60, **means})
    print(f"step {state.step}: " + ", ".join(f"{key} {value:.4g}" for key, value in means.items()), flush=True)


def train(settings: TrainSettings, state: TrainState) -> None:
    """Run until the steps or the minutes are used up."""
    clips = validation_clips(settings.packed, settings.left_out, settings.size, settings.validation_clips)
    if state.step == 0:
        record(settings, state, clips)
    next_record = state.seconds + settings.checkpoint_minutes * 60
    before = time.monotonic()
    last = min(settings.steps, settings.stop_after or settings.steps)
    for batch in step_loader(settings.clips, state.step, last, settings.workers):
        row = train_step(settings, state, batch)
        now = time.monotonic()
        row["step_seconds"] = now - before
        state.seconds, before = state.seconds + now - before, now
        state.recent.append(row)
        if state.step % settings.log_every == 0:
            log_recent(settings, state)
        if progress(settings, state) >= 1:
            break
        if state.seconds >= next_record:
            record(settings, state, clips)
            next_record += settings.checkpoint_minutes * 60
            before = time.monotonic()  # validation does not count as training time
    record(settings, state, clips)


def parse(arguments: list[str] | None = None) -> tuple[TrainSettings, bool]:
    """Settings from the command line, and whether to resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = TrainSettings(out=Path())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="weights to start from (.safetensors)")
    parser.add_argument("--packed", type=Path, help="packed images; left out: procedural textures")
    parser.add_argument("--without", nargs="*", default=[], choices=(COPYLEFT, SHARE_ALIKE), help="terms to leave out")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    for name in ("minutes", "rate", "encoder_share", "ema", "checkpoint_minutes"):
        parser.add_argument("--" + name.replace("_", "-"), type=float, default=getattr(defaults, name))
    for name in (
        "size",
        "working",
        "frames",
        "batch",
        "steps",
        "stop_after",
        "seed",
        "log_every",
        "validation_clips",
        "workers",
        "threads",
    ):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(defaults, name))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=(FLOAT32, BFLOAT16), default=FLOAT32)
    options = vars(parser.parse_args(arguments))
    resume, left_out = options.pop("resume"), packages_with(tuple(options.pop("without")))
    return replace(defaults, **options, left_out=left_out), resume


def main() -> int:
    """0 when the run is finished."""
    settings, resume = parse()
    torch.set_num_threads(settings.threads)
    settings.out.mkdir(parents=True, exist_ok=True)
    state = start_state(settings)
    if resume:
        load_checkpoint(settings.out / "checkpoint.pt", state)
    shown = {key: str(value) if isinstance(value, Path) else value for key, value in vars(settings).items()}
    (settings.out / "settings.json").write_text(json.dumps(shown, indent=2))
    train(settings, state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
