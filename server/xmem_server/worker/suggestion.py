"""One suggestion: stored features and mattes to the frames worth annotating next, with reasons (paper section 3.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from xmem_core.confidence import expected_overlap, find_unsure
from xmem_core.engine import Engine
from xmem_core.keyframes import (
    Candidate,
    FrameKeys,
    FrameMask,
    LostObject,
    SuggestionRule,
    find_lost_objects,
    measure_area,
    suggest_keyframes,
    summarise_mask,
)
from xmem_core.weights import LoadedModel
from xmem_protocol import InputError, Suggestion
from xmem_server.decoding import Decoder
from xmem_server.plans import EngineDone, EngineSuggestions, MatteSource, SuggestionPlan
from xmem_server.worker.channel import Channel
from xmem_server.worker.features import FeatureBudget, FeatureCache
from xmem_server.worker.propagation import LAYERED
from xmem_server.worker.reporting import Reporter
from xmem_server.worker.settings import fetch_encoding, fetch_policy, fetch_precision, fetch_working_size

DIFFERENT = "different"
LOST = "lost"
UNSURE = "unsure"
STRIDE = 16  # pixels of the working size to one key position


class StoredKeys(Mapping[int, FrameKeys]):
    """Keys by frame number, fetched from the cache when asked for, so that a long shot need not fit in memory."""

    def __init__(self, cache: FeatureCache, frames: tuple[int, ...]) -> None:
        self._cache = cache
        self._frames = frames

    def __getitem__(self, frame: int) -> FrameKeys:
        return self._cache.fetch_keys(frame)

    def __iter__(self) -> Iterator[int]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)


def run_suggestion(plan: SuggestionPlan, model: LoadedModel, decoder: Decoder, channel: Channel) -> None:
    """Work through a plan; EngineSuggestions, then EngineDone, are the last things said.

    Raises InputError or CoreError when it cannot be done, JobCancelledError when it is cancelled.
    """
    rule = SuggestionRule(plan.settings.count, plan.settings.alpha, plan.settings.min_area)
    encoding = fetch_encoding(plan, plan.propagation, model, decoder)
    engine = Engine(
        model.network,
        fetch_policy(plan.propagation),
        fetch_precision(plan.propagation),
        fetch_working_size(plan.propagation, model.network.config),
    )
    cache = FeatureCache(engine, decoder, plan.plates, encoding, Path(plan.cache), FeatureBudget())
    key_size = tuple(-(-side // STRIDE) for side in encoding.working)  # padded up to whole positions
    survey = MatteSurvey(plan, decoder, Reporter(channel, plan.job), (key_size[0], key_size[1]))
    survey.run()
    said = {source.key.frame for source in plan.keys if plan.settings.object_id in (0, source.key.object_id)}
    annotated = sorted(said & survey.masks.keys())
    keys = StoredKeys(cache, tuple(sorted(survey.masks)))
    with torch.inference_mode():
        different = suggest_keyframes(keys, survey.masks, annotated, rule)
    lost = find_lost_objects(survey.areas, _explained(plan), rule.min_area)[: rule.count]
    unsure = find_unsure(survey.least_certain(), frozenset(said), plan.settings.unsure)
    suggestions = merge_by_frame(
        [_say_lost(one) for one in lost],
        [_say_different(one, plan) for one in different],
        [_say_unsure(frame, overlap, plan) for frame, overlap in unsure],
    )
    channel.send(EngineSuggestions(plan.job, suggestions, _note(len(different), rule.count)))
    channel.send(EngineDone(plan.job, f"compared {len(survey.masks)} frames with {len(annotated)} annotated ones"))


def _explained(plan: SuggestionPlan) -> dict[int, frozenset[int]]:
    by_object: dict[int, set[int]] = {}
    for source in plan.keys:
        by_object.setdefault(source.key.object_id, set()).add(source.key.frame)
    return {object_id: frozenset(frames) for object_id, frames in by_object.items()}


class MatteSurvey:
    """Areas and key-sized masks of a propagation's mattes; each matte is decoded once."""

    def __init__(self, plan: SuggestionPlan, decoder: Decoder, reporter: Reporter, key_size: tuple[int, int]) -> None:
        self._decoder = decoder
        self._reporter = reporter
        self._key_size = key_size
        self._layered = plan.propagation.layout == LAYERED
        self._by_frame: dict[int, list[MatteSource]] = {}
        for matte in plan.mattes:
            if plan.settings.object_id in (0, matte.object_id):
                self._by_frame.setdefault(matte.frame, []).append(matte)
        if not self._by_frame:
            raise InputError(
                f"Object {plan.settings.object_id} has no mattes. Propagate it first, or ask for all objects."
            )
        self.masks: dict[int, FrameMask] = {}
        self.areas: dict[int, dict[int, float]] = {}  # object id -> frame number -> share of the picture
        self._certainty: dict[int, list[float]] = {}  # frame number -> expected overlap of each object's matte

    def run(self) -> None:
        """Fill ``masks`` and ``areas``. Raises JobCancelledError between frames."""
        for done, (frame, sources) in enumerate(sorted(self._by_frame.items())):
            self._reporter.report("comparing", done, len(self._by_frame), frame)
            mattes = torch.stack([self._fetch(source) for source in sources])  # (C, H, W)
            self.masks[frame] = summarise_mask(mattes, self._key_size)
            for source, matte in zip(sources, mattes, strict=True):
                self.areas.setdefault(source.object_id, {})[frame] = measure_area(matte[None])
                self._certainty.setdefault(frame, []).append(expected_overlap(matte))

    def least_certain(self) -> dict[int, float]:
        """Give for each frame the expected overlap (0..1) of its least certain matte."""
        return {frame: min(overlaps) for frame, overlaps in self._certainty.items()}

    def _fetch(self, source: MatteSource) -> Tensor:
        selector = f"channel:object_{source.object_id}.A" if self._layered else "channel:auto"
        return torch.from_numpy(self._decoder.fetch_alpha(source.path, source.suffix, selector))


def _say_different(candidate: Candidate, plan: SuggestionPlan) -> Suggestion:
    reason = (
        f"looks least like any key: {candidate.score:.3g} away from frame {candidate.nearest}, "
        f"the nearest annotated or suggested one"
    )
    return Suggestion(candidate.frame, DIFFERENT, plan.settings.object_id, candidate.score, reason)


def _say_unsure(frame: int, overlap: float, plan: SuggestionPlan) -> Suggestion:
    reason = f"its matte is the least certain: {100 * overlap:.0f} % overlap expected, by the matte's own probabilities"
    return Suggestion(frame, UNSURE, plan.settings.object_id, 1 - overlap, reason)


def merge_by_frame(*lists: list[Suggestion]) -> tuple[Suggestion, ...]:
    """Give every list in its order, no frame twice: its reasons are joined where it is named first."""
    merged: dict[int, Suggestion] = {}
    for one in itertools.chain(*lists):
        known = merged.get(one.frame)
        merged[one.frame] = one if known is None else replace(known, reason=f"{known.reason}; {one.reason}")
    return tuple(merged.values())


def _say_lost(lost: LostObject) -> Suggestion:
    return Suggestion(lost.frame, LOST, lost.object_id, lost.score, lost.reason)


def _note(found: int, wanted: int) -> str:
    if found == wanted:
        return ""
    if found == 0:
        return "No other frame is worth a key by this rule: every one is annotated, too small in the picture, or equal to a key."
    return (
        f"Only {found} of {wanted} frames are different enough; the others are annotated, too small, or equal to a key."
    )
