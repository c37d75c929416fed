"""Rows of memory: the best of many similarities, and sums of differences."""

from __future__ import annotations

import numpy as np
from numba import prange

from xmem_core.kernels.compiling import LEAST, ZERO, Floats, Halves, Places, compiled, compiled_sums, inlined

GROUP = 32  # rows whose largest similarity stands for them while the best are looked for
PLACE_BITS = 32  # of a place that say which row of its frame it is
ROW_OF_PLACE = (1 << PLACE_BITS) - 1
NONE = np.int16(0)


@compiled
def keep_best(scores: Floats, first: int, best: Floats, places: Places) -> None:
    """Put the scores (M, N) of places ``first``, ``first`` + 1, ... where they belong among the best (M, k) of each row, at places (M, k).

    Those are sorted, largest first, of equal ones the lower place first; the last ones go. So in which order scores come makes no
    difference. They are finite, or -inf, which stands for nothing. Only groups of which the largest is good enough are looked into.
    """
    for query in prange(scores.shape[0]):
        _keep_of_line(scores[query], first, best[query], places[query])


@inlined
def _keep_of_line(line: Floats, first: int, best: Floats, places: Places) -> None:
    groups, last = len(line) // GROUP, len(best) - 1
    for group in range(groups):
        largest = line[group * GROUP]
        for i in range(group * GROUP, (group + 1) * GROUP):
            largest = max(largest, line[i])
        if largest >= best[last]:
            for i in range(group * GROUP, (group + 1) * GROUP):
                _insert(line[i], first + i, best, places)
    for i in range(groups * GROUP, len(line)):
        _insert(line[i], first + i, best, places)


@inlined
def _insert(score: np.float32, place: int, best: Floats, places: Places) -> None:
    at = len(best) - 1
    if score > best[at] or (score == best[at] and place < places[at] and score > LEAST):
        while at > 0 and (best[at - 1] < score or (best[at - 1] == score and places[at - 1] > place)):
            best[at], places[at] = best[at - 1], places[at - 1]
            at -= 1
        best[at], places[at] = score, place


@compiled
def choose_best(
    best: Floats, places: Places, frames: tuple[Places, Places], chosen: Floats, rows: Places, counts: Places
) -> None:
    """Fill chosen and rows (M, k) with the first of the best (M, K) that are of some frames, and counts (M,) with how many these are.

    A place is ``frame << PLACE_BITS | row``. ``frames`` are their numbers (n,), ascending, and what is added to their rows (n,). What is
    left over is -inf at row 0.
    """
    for query in prange(best.shape[0]):
        counts[query] = _choose_of_line(best[query], places[query], frames, chosen[query], rows[query])


@inlined
def _choose_of_line(best: Floats, places: Places, frames: tuple[Places, Places], chosen: Floats, rows: Places) -> int:
    numbers, starts = frames
    count = 0
    for i in range(len(best)):
        if count == len(chosen) or best[i] == LEAST:
            break
        frame = places[i] >> PLACE_BITS
        at = np.searchsorted(numbers, frame)  # where it is, if it is there
        if at < len(numbers) and numbers[at] == frame:
            chosen[count], rows[count] = best[i], starts[at] + (places[i] & ROW_OF_PLACE)
            count += 1
    for i in range(count, len(chosen)):
        chosen[i], rows[i] = LEAST, 0
    return count


@compiled_sums
def add_excess(larger: Floats, smaller: Floats, sums: Floats) -> None:
    """Fill sums (M,) with by how much each row of larger (M, N) is above smaller (M, N), where it is, all added up."""
    for row in prange(larger.shape[0]):
        sums[row] = _add_line(larger[row], smaller[row])


@inlined
def _add_line(larger: Floats, smaller: Floats) -> np.float32:
    total = ZERO
    for i in range(len(larger)):
        total += max(larger[i] - smaller[i], ZERO)
    return total


@compiled_sums
def add_positive(halves: Halves, sums: Floats) -> None:
    """Fill sums (M,) with the sum of what is above 0 in each row of halves (M, N): bfloat16, by its bits."""
    for row in prange(halves.shape[0]):
        sums[row] = _add_positive_line(halves[row])


@inlined
def _add_positive_line(line: Halves) -> np.float32:
    total = ZERO
    for i in range(len(line)):
        # A bfloat16 is the upper half of a float32, and negative where its bits as a whole number are.
        total += np.int32(np.int32(max(line[i], NONE)) << 16).view(np.float32)
    return total
