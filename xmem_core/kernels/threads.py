"""How many threads loops have: as many as torch. To be imported before Numba, which asks once, as it is imported itself."""

from __future__ import annotations

import os

import torch

THREADS = (
    torch.get_num_threads()
)  # given to loops that divide their work by it: one that asks for it itself cannot be kept on disk
os.environ.setdefault("NUMBA_NUM_THREADS", str(THREADS))
