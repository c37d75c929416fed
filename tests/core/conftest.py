"""The shipped network and a small moving scene."""

import pytest
import torch
import torch.nn.functional as F

from xmem_core.weights import load_model

HEIGHT, WIDTH = 112, 160


def smooth_texture(seed, height, width, colour):
    """Give (3, height, width) of soft blotches around a colour."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    blotches = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    return (torch.tensor(colour)[:, None, None] + 0.35 * (blotches - 0.5)).clamp(0, 1)


@pytest.fixture(scope="session")
def network():
    return load_model("compact").network


@pytest.fixture(scope="session")
def scene():
    """Ten frames of two textured objects drifting over a background; images (T, 3, H, W), ids (T, H, W)."""
    background = smooth_texture(0, HEIGHT, WIDTH, (0.3, 0.45, 0.3))
    objects = {1: smooth_texture(1, 48, 48, (0.85, 0.6, 0.2)), 2: smooth_texture(2, 40, 40, (0.2, 0.3, 0.8))}
    images, ids = [], []
    for t in range(10):
        image, mask = background.clone(), torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
        for object_id, (top, left) in {1: (8, 10 + 2 * t), 2: (64, 110 - 2 * t)}.items():
            height, width = objects[object_id].shape[1:]
            image[:, top : top + height, left : left + width] = objects[object_id]
            mask[top : top + height, left : left + width] = object_id
        images.append(image)
        ids.append(mask)
    return torch.stack(images), torch.stack(ids)
