"""One suggestion: stored features and mattes to the frames worth annotating next, with reasons (paper section 3.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from xmem_core.confidence import find_unsure
from xmem_core.dissimilarity import FrameKeys, FrameMask
from xmem_core.engine import Engine
from xmem_core.keyframes import Candidate, LostObject, SuggestionRule, find_lost_objects, suggest_keyframes
from xmem_core.weights import LoadedModel
from xmem_protocol import InputError, Suggestion
from xmem_server.decoding import Decoder
from xmem_server.plans import EngineDone, EngineSuggestions, MatteSource, SuggestionPlan
from xmem_server.worker.cache_folder import CacheFolder
from xmem_server.worker.channel import Channel
from xmem_server.worker.features import FeatureBudget, FeatureCache
from xmem_server.worker.matte_summary import MatteSummary, SummaryCache, fetch_key_size, summarise
from xmem_server.worker.matte_writer import fetch_matte
from xmem_server.worker.reporting import Reporter
from xmem_server.worker.settings import fetch_encoding, fetch_policy, fetch_precision, fetch_working_size

DIFFERENT = "different"
LOST = "lost"
UNSURE = "unsure"


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
    budget = FeatureBudget()
    folder = CacheFolder(Path(plan.cache), budget.disk_bytes)
    survey = MatteSurvey(plan, decoder, Reporter(channel, plan.job), SummaryCache(folder, fetch_key_size(encoding)))
    survey.run()
    said = {source.key.frame for source in plan.keys if plan.settings.object_id in (0, source.key.object_id)}
    annotated = sorted(said & survey.masks.keys())
    with FeatureCache(engine, decoder, plan.plates, encoding, folder, budget) as cache, torch.inference_mode():
        different = suggest_keyframes(StoredKeys(cache, tuple(sorted(survey.masks))), survey.masks, annotated, rule)
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
    """Areas, key-sized masks and certainties of a propagation's mattes, as kept when they were written; else each is decoded once."""

    def __init__(self, plan: SuggestionPlan, decoder: Decoder, reporter: Reporter, summaries: SummaryCache) -> None:
        self._decoder = decoder
        self._reporter = reporter
        self._summaries = summaries
        self._layout = plan.propagation.layout
        self._object_id = plan.settings.object_id
        self._by_frame: dict[int, list[MatteSource]] = {}
        for matte in sorted(plan.mattes, key=lambda each: each.object_id):
            self._by_frame.setdefault(matte.frame, []).append(matte)
        if not any(self._is_wanted(matte) for matte in plan.mattes):
            raise InputError(
                f"Object {plan.settings.object_id} has no mattes. Propagate it first, or ask for all objects."
            )
        self.masks: dict[int, FrameMask] = {}
        self.areas: dict[int, dict[int, float]] = {}  # object id -> frame number -> share of the picture
        self._certainty: dict[int, list[float]] = {}  # frame number -> expected overlap of each object's matte

    def _is_wanted(self, matte: MatteSource) -> bool:
        return self._object_id in (0, matte.object_id)

    def run(self) -> None:
        """Fill ``masks`` and ``areas``. Raises JobCancelledError between frames."""
        for done, (frame, sources) in enumerate(sorted(self._by_frame.items())):
            self._reporter.report("comparing", done, len(self._by_frame), frame)
            chosen = [place for place, source in enumerate(sources) if self._is_wanted(source)]
            if not chosen:
                continue
            summary = self._fetch_summary(sources)
            self.masks[frame] = summary.pick(chosen)
            for place in chosen:
                self.areas.setdefault(sources[place].object_id, {})[frame] = float(summary.areas[place])
                self._certainty.setdefault(frame, []).append(float(summary.certainty[place]))

    def _fetch_summary(self, sources: list[MatteSource]) -> MatteSummary:
        names = [(Path(source.path).name, source.object_id) for source in sources]
        known = self._summaries.load(names)
        if known is None:
            mattes = [fetch_matte(self._decoder, source, self._layout) for source in sources]
            known = summarise(torch.from_numpy(np.stack(mattes)), self._summaries.key_size)
            self._summaries.save(names, known)
        return known

    def least_certain(self) -> dict[int, float]:
        """Give for each frame the expected overlap (0..1) of its least certain matte."""
        return {frame: min(overlaps) for frame, overlaps in self._certainty.items()}


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
