"""What a job will take and the size that fits: arithmetic here; `benchmarks.memory_estimate` compares it with what is used."""

from dataclasses import replace

import pytest

from tests.server.house import House
from tests.server.moving_scene import FIRST, plan_of, save_scene
from tests.server.test_memory_ladder import Listener
from xmem_core.network import COMPACT, NetworkConfig
from xmem_core.weights import load_model
from xmem_protocol import InputError, PropagationSettings, Shot, SuggestionSettings
from xmem_server.decoding import Decoder
from xmem_server.plans import EngineDone, EngineProgress, SuggestionPlan
from xmem_server.worker.memory_plan import GIBIBYTE, Load, estimate_bytes, settle_size
from xmem_server.worker.propagation import run_propagation

UHD = Shot("uhd", 3840, 2160, 1.0, 1, 500, "auto")
SETTINGS = PropagationSettings(1, 500)


def need(size, shot=UHD, config=COMPACT, **load):
    return estimate_bytes(
        Load(**{"shot": shot, "frames": 500, "keyed": 5, "objects": 1, **load}), SETTINGS, config, size
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return save_scene(tmp_path_factory.mktemp("scene"))


def plan(tmp_path, scene, shot=UHD, **settings):
    return plan_of(tmp_path, *scene, shot=shot, settings=replace(SETTINGS, **settings))


def test_when_a_job_is_larger_then_it_takes_more():
    sizes = [need(size) for size in (240, 360, 720, 1080, 2160)]
    assert sizes == sorted(sizes)
    assert need(720, objects=4) > need(720)
    assert need(720, keyed=50) > need(720)
    assert need(720, config=NetworkConfig()) > need(720)


def test_when_a_shot_is_longer_then_it_takes_no_more_from_some_length_on():
    assert need(480, frames=5000) == need(480, frames=20_000)


def test_when_uhd_plates_are_worked_on_at_1080_then_eight_gibibytes_suffice():
    assert need(1080) < 8 * GIBIBYTE


def test_when_all_fits_then_nothing_is_changed_but_said(tmp_path, scene):
    given = plan(tmp_path, scene)
    settled = settle_size(given, COMPACT, 8 * GIBIBYTE)
    assert replace(settled, note="") == given
    assert settled.note == f"about {need(360, keyed=1, objects=2) / GIBIBYTE:.1f} GiB of memory"


def test_when_the_models_own_size_does_not_fit_then_the_largest_that_does_is_taken_and_told(tmp_path, scene):
    config = replace(COMPACT, working_size=1080)
    memory = need(1080, config=config, keyed=1, objects=2) - 1
    settled = settle_size(plan(tmp_path, scene), config, memory)
    assert 900 < settled.settings.working_size < 1080
    assert settled.settings.working_size % 16 == 0
    assert f"at working size {settled.settings.working_size}; 1080 would take" in settled.note
    larger = need(settled.settings.working_size + 16, config=config, keyed=1, objects=2)
    assert larger > memory or settled.settings.working_size + 16 >= 1080


def test_when_the_artists_own_size_does_not_fit_then_it_is_refused_with_one_that_does(tmp_path, scene):
    memory = need(1080, keyed=1, objects=2)
    with pytest.raises(InputError, match=r"Working size 2160 takes about .* Choose \d+ or less, or 0"):
        settle_size(plan(tmp_path, scene, working_size=2160), COMPACT, memory)


def test_when_nothing_fits_then_the_server_option_is_named(tmp_path, scene):
    with pytest.raises(InputError, match="--engine-memory"):
        settle_size(plan(tmp_path, scene), COMPACT, GIBIBYTE // 8)


def test_when_a_suggestion_follows_then_it_looks_at_the_size_of_its_propagation(tmp_path, scene):
    config = replace(COMPACT, working_size=1080)
    memory = need(1080, config=config, keyed=1, objects=2) - 1
    given = plan(tmp_path, scene)
    fields = (given.job, given.session, given.shot, given.plates, given.keys, ())
    suggestion = SuggestionPlan(*fields, SuggestionSettings(1), given.settings, given.cache)
    size = settle_size(given, config, memory).settings.working_size
    assert settle_size(suggestion, config, memory).propagation.working_size == size


def test_when_a_job_runs_then_what_it_takes_is_said_from_its_first_progress_on(tmp_path, scene):
    model, channel = load_model("compact"), Listener()
    settled = settle_size(plan_of(tmp_path, *scene), model.network.config, GIBIBYTE)
    with Decoder() as decoder:
        run_propagation(settled, model, decoder, channel)
    notes = {event.note for event in channel.said if isinstance(event, EngineProgress)}
    assert notes == {settled.note}
    (done,) = [event for event in channel.said if isinstance(event, EngineDone)]
    assert settled.note in done.summary


def test_when_a_snapshot_is_of_another_size_then_the_job_starts_from_its_first_frame(tmp_path, scene):
    model, channel = load_model("compact"), Listener()
    given = plan_of(tmp_path, *scene)
    with Decoder() as decoder:
        run_propagation(given, model, decoder, channel)
        snapshot = next(event.path for event in channel.said if type(event).__name__ == "EngineSnapshot")
        smaller = replace(given, snapshot=snapshot, settings=replace(given.settings, working_size=96))
        again = Listener()
        run_propagation(replace(smaller, finished=tuple(range(FIRST, FIRST + 3))), model, decoder, again)
    mattes = [event.frame for event in again.said if type(event).__name__ == "EngineMatte"]
    assert mattes == list(range(FIRST + 3, FIRST + 10))


def test_when_the_engine_says_what_it_takes_then_the_client_hears_it(tmp_path, decoder):
    with House(tmp_path, decoder, {"wait_at": 1003}) as house:
        house.ready()
        job = house.start()
        house.pump(lambda: house.host.fetch_progress(job).note == "about 0.1 GiB of memory")
        house.go()
        house.finish(job)
