"""Whether the certainty of mattes ranks real frames by their true error: reads what ``benchmarks.quality`` left.

    python -m benchmarks.confidence --clips FOLDER --work FOLDER

For each run in the work folder (``CLIP-K-keys``, ``CLIP-K-mattes``): Spearman's rank correlation between each frame's expected overlap
and its true J, over frames and objects that are not annotated. 0 is chance, 1 the true order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from training.calibration import rank_correlation
from xmem_core.confidence import expected_overlap
from xmem_server.decoding import Decoder


def measure_run(decoder: Decoder, masks: Path, mattes: Path, annotated: frozenset[int]) -> list[tuple[float, float]]:
    """Give the expected and the true J of each frame and object that can be seen, annotated frames left out."""
    found = []
    for folder in sorted(path for path in mattes.iterdir() if path.name.isdigit()):
        for path in sorted(folder.glob("*.exr")):
            frame = int(path.stem)
            truth_file = masks / f"{frame:05d}.png"
            if frame in annotated or not truth_file.exists():
                continue
            matte = decoder.fetch_alpha(str(path), ".exr", "channel:A")
            truth = decoder.fetch_alpha(str(truth_file), ".png", f"index:{folder.name}") > 0.5
            present = matte > 0.5
            union = int((present | truth).sum())
            if union:
                overlap = int((present & truth).sum()) / union
                found.append((expected_overlap(torch.from_numpy(matte.copy())), overlap))
    return found


def main() -> None:
    """Print one line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    print("| clip | keys | rank correlation | mean J | mean expected J |\n|---|--:|--:|--:|--:|")
    with Decoder() as decoder:
        for mattes in sorted(options.work.glob("*-mattes")):
            clip, keys, _ = mattes.name.rsplit("-", 2)
            annotated = frozenset(int(path.stem) for path in (options.work / f"{clip}-{keys}-keys").glob("*.png"))
            pairs = np.array(measure_run(decoder, options.clips / clip / "masks", mattes, annotated))
            ranked = rank_correlation(pairs[:, 0], pairs[:, 1])
            print(f"| {clip} | {keys} | {ranked:.2f} | {pairs[:, 1].mean():.3f} | {pairs[:, 0].mean():.3f} |")


if __name__ == "__main__":
    main()
