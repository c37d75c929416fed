"""Losses against soft mattes: bootstrapped cross-entropy, dice and the alpha's own difference.

Shapes: B clips, N objects, H and W pixels. Channel 0 of logits is the background. Targets are alphas 0..1, not classes, so
that a border pixel is taught its share.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-6  # probabilities are kept this far from 0 and 1, so that log-odds stay finite


def aggregate_logits(logits: Tensor) -> Tensor:
    """Give log-odds (B, N + 1, H, W), background first, for each object's own logits (B, N, H, W).

    Their softmax is ``xmem_core.network.aggregate`` of the objects' sigmoids.
    """
    own = torch.sigmoid(logits.float())
    background = torch.prod(1 - own, 1, keepdim=True)
    return torch.logit(torch.cat([background, own], 1).clamp(SMALLEST, 1 - SMALLEST))


def with_background(alpha: Tensor) -> Tensor:
    """Give (B, N + 1, H, W) shares that sum to 1, background first, for alphas (B, N, H, W)."""
    return torch.cat([(1 - alpha.sum(1, keepdim=True)).clamp(0, 1), alpha], 1)


def bootstrapped_cross_entropy(logits: Tensor, alpha: Tensor, share: float) -> Tensor:
    """Give the mean over the worst ``share`` of each clip's pixels of the cross-entropy above the target's own entropy.

    logits (B, N + 1, H, W), alpha (B, N, H, W). Zero where the prediction equals the alpha, soft pixels included.
    """
    target = with_background(alpha)
    entropy = -torch.xlogy(target, target).sum(1)
    excess = (F.cross_entropy(logits, target, reduction="none") - entropy).flatten(1)  # (B, H*W)
    if share < 1:
        excess = excess.topk(max(1, int(excess.shape[1] * share)), 1).values
    return excess.mean()


def dice_loss(logits: Tensor, alpha: Tensor, exists: Tensor) -> Tensor:
    """Give the mean over the objects that exist of 1 - (2 <p, a> + 1) / (<p, p> + <a, a> + 1); 0 where p equals alpha.

    logits (B, N + 1, H, W), alpha (B, N, H, W), exists (B, N) truth values: a place that no object of the clip takes has no
    overlap to speak of, and would only teach to say nothing. Squares in the denominator: with plain sums, soft pixels would be
    pushed to 0 or 1.
    """
    p = torch.softmax(logits, 1)[:, 1:].flatten(2)
    a = alpha.flatten(2)
    each = 1 - (2 * (p * a).sum(2) + 1) / (p.square().sum(2) + a.square().sum(2) + 1)  # (B, N)
    return (each * exists).sum() / exists.sum().clamp(min=1)


def alpha_loss(logits: Tensor, alpha: Tensor, share: float) -> Tensor:
    """Give the mean over the worst ``share`` of each clip's pixels of the objects' summed |p - a|, 0..2.

    logits (B, N + 1, H, W), alpha (B, N, H, W). Where the cross-entropy asks for caution at an edge it cannot place, this asks for
    the alpha in the middle of what is possible, as matting losses do.
    """
    wrong = (torch.softmax(logits, 1)[:, 1:] - alpha).abs().sum(1).flatten(1)  # (B, H*W)
    if share < 1:
        wrong = wrong.topk(max(1, int(wrong.shape[1] * share)), 1).values
    return wrong.mean()


def clip_loss(predicted: dict[int, Tensor], alpha: Tensor, share: float) -> Tensor:
    """Give the mean loss over predicted frames: frame -> aggregate logits (B, N + 1, H, W), alpha (B, N, T, H, W)."""
    exists = (alpha > 0).flatten(2).any(2)
    terms = [
        bootstrapped_cross_entropy(logits, alpha[:, :, frame], share)
        + dice_loss(logits, alpha[:, :, frame], exists)
        + alpha_loss(logits, alpha[:, :, frame], share)
        for frame, logits in predicted.items()
    ]
    return torch.stack(terms).mean()


@torch.no_grad()
def region_scores(predicted: dict[int, Tensor], alpha: Tensor) -> Tensor:
    """Give the region similarity J (intersection over union at 0.5) of each clip and object, (B, N).

    Mean over the predicted frames on which the object or its prediction can be seen; NaN for an object that is on none.
    """
    scores = []
    for frame, logits in predicted.items():
        found = (torch.softmax(logits, 1)[:, 1:] > 0.5).flatten(2)
        wanted = (alpha[:, :, frame] > 0.5).flatten(2)
        union = (found | wanted).sum(2).float()
        score = (found & wanted).sum(2) / union  # 0/0 is NaN: nothing wanted, nothing found
        scores.append(score)
    means = torch.stack(scores).nanmean(0)
    missing = ~(alpha > 0.5).flatten(2).any(2)
    return means.masked_fill(missing, torch.nan)
