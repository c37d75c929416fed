import csv
from dataclasses import replace

import pytest
import torch

from training.clip_forward import ClipInput, ClipPlan, carry_keys, forward_clip, plan_clip, spoil
from training.convert_pilot import new_name
from training.loading import step_loader
from training.mixed import FixedDepthwise
from training.plot_curve import plot
from training.train import (
    TrainSettings,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
    start_state,
    train,
    train_step,
)
from xmem_core.network import COMPACT, build_network
from xmem_core.weights import load_model


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(folder, **changes):
    made = TrainSettings(
        out=folder, size=32, frames=3, batch=2, steps=4, workers=0, validation_clips=2, log_every=1, rate=1e-3
    )
    folder.mkdir(exist_ok=True)
    return replace(made, **changes)


def run_steps(settings, state, last):
    for batch in step_loader(settings.clips, state.step, last, 0):
        train_step(settings, state, batch)


def still_clip(images, masks):
    """The input for images (B, T, 3, H, W) between which nothing moves, all of it believed."""
    motion = torch.zeros(images.shape[0], images.shape[1] - 1, 2, 3, images.shape[-2] // 4, images.shape[-1] // 4)
    motion[:, :, :, 2] = 1
    return ClipInput(images, masks, motion)


def test_when_a_run_is_resumed_then_two_more_steps_equal_the_uninterrupted_run(tmp_path):
    settings = tiny(tmp_path / "run")
    whole = start_state(settings)
    run_steps(settings, whole, 4)
    first = start_state(settings)
    run_steps(settings, first, 2)
    save_checkpoint(tmp_path / "checkpoint.pt", first)
    second = start_state(replace(settings, seed=1))
    load_checkpoint(tmp_path / "checkpoint.pt", second)
    run_steps(settings, second, 4)
    assert second.step == whole.step == 4
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[key]), key
        assert torch.equal(whole.ema[key], second.ema[key]), key


def test_when_a_run_ends_then_its_folder_has_weights_that_load_and_curves_that_plot(tmp_path):
    settings = tiny(tmp_path / "run", steps=2)
    train(settings, start_state(settings))
    assert load_model(str(settings.out / "best.safetensors")).network.config.architecture == "compact"
    with (settings.out / "log.csv").open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2"]
    with (settings.out / "validation.csv").open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["0", "2"]
    assert plot(settings.out).shape[1:] == (900, 3)


def test_when_training_goes_on_then_the_rate_warms_up_and_falls_to_three_percent(tmp_path):
    settings = tiny(tmp_path / "run", steps=1000, rate=1.0)
    state = start_state(settings)
    rates = []
    for step in (0, 39, 500, 1000):
        state.step = step
        rates.append(learning_rate(settings, state))
    assert rates[0] == pytest.approx(1 / 40)
    assert rates[1] == pytest.approx(1, abs=0.01)
    assert rates[2] == pytest.approx((1 + 0.03) / 2, abs=0.01)
    assert rates[3] == pytest.approx(0.03)


def test_when_a_clip_is_forwarded_then_each_frame_that_is_not_given_is_predicted_and_teaches_every_part():
    torch.manual_seed(0)
    network = build_network(COMPACT)
    images, masks = torch.randn(1, 4, 3, 32, 32), torch.zeros(1, 2, 4, 32, 32)
    masks[:, 0, :, 4:20, 4:20] = 1
    plan = ClipPlan(4, (0, 2), frozenset({1}), ((1, "grown"),), top_k=3)
    predicted = forward_clip(network, still_clip(images, masks), plan)
    assert list(predicted) == [1, 3]
    assert predicted[3].shape == (1, 3, 32, 32)
    predicted[3].square().mean().backward()
    silent = [name for name, value in network.named_parameters() if value.grad is None]
    assert all(name.startswith("decoder.hidden_update") for name in silent)  # frame 1 made a deep update, 3 is the last


def test_when_only_unseen_frames_masks_change_then_predictions_do_not():
    torch.manual_seed(0)
    network = build_network(COMPACT)
    images, masks = torch.randn(1, 3, 3, 32, 32), torch.zeros(1, 1, 3, 32, 32)
    masks[:, :, 0, 8:24, 8:24] = 1
    other = masks.clone()
    other[:, :, 1:] = 1
    plan = ClipPlan(3, (0,), frozenset({1}))
    with torch.no_grad():
        first, second = (forward_clip(network, still_clip(images, given), plan) for given in (masks, other))
    assert all(torch.equal(first[frame], second[frame]) for frame in first)


def test_when_keys_are_carried_back_then_each_frame_gets_the_next_key_as_far_as_the_motion_is_believed():
    masks = torch.zeros(1, 1, 5, 16, 16)
    masks[:, :, 2, :, 4:8], masks[:, :, 4, :, 8:12] = 1, 1
    clip = still_clip(torch.zeros(1, 5, 3, 16, 16), masks)
    clip.motion[:, :, 1, 2] = 0.5
    carried = carry_keys(clip, (2, 4))
    assert sorted(carried) == [0, 1, 3]
    assert torch.equal(carried[0][0][0, 0], masks[0, 0, 2])
    assert carried[0][1].unique().tolist() == [0.25]
    assert torch.equal(carried[3][0][0, 0], masks[0, 0, 4])


def test_when_plans_are_drawn_then_each_has_keys_and_something_to_predict():
    for step in range(200):
        plan = plan_clip((1, step), 5)
        assert 1 <= len(plan.keys) <= 3
        assert len(plan.keys) < 5
        assert not plan.written & set(plan.keys)
        assert plan == plan_clip((1, step), 5)


def test_when_a_mask_is_spoiled_then_it_grows_shrinks_or_loses_half():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10:22, 10:22] = 1
    assert float(spoil(mask, "grown").sum()) == 20 * 20
    assert float(spoil(mask, "shrunk").sum()) == 4 * 4
    assert float(spoil(mask, "lost").sum()) == pytest.approx(12 * 6 * 1.1)


@pytest.mark.parametrize("dilation", [1, 2])
def test_when_a_depthwise_kernel_is_fixed_then_its_input_gradient_is_the_ordinary_one(dilation):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 4, 5, padding=2 * dilation, dilation=dilation, groups=4)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    gradient = torch.randn(2, 4, 9, 9)
    (expected,) = torch.autograd.grad(layer(x), x, gradient)
    (found,) = torch.autograd.grad(FixedDepthwise.apply(x, layer), x, gradient)
    torch.testing.assert_close(found, expected)


def test_when_a_pilots_name_is_converted_then_the_compact_network_has_it():
    names = build_network(COMPACT).state_dict()
    for old in (
        "key_enc.blocks.3.dw.weight",
        "v4r.c1.bias",
        "fus1.d.weight",
        "deep.t.bias",
        "d_att.sp.weight",
        "anchor",
    ):
        assert new_name(old) in names
    with pytest.raises(KeyError):
        new_name("unknown.weight")
