"""Rows are edited by frame number."""

import torch

from xmem_core.bank import Bank
from xmem_core.rows import Rows


def rows(number, count=2, objects=(1,)):
    filled = torch.full((count, 3), float(number))
    return Rows(filled, filled[:, :1], filled, {o: filled + o for o in objects}, {})


def frames_in_values(bank, object_id=1):
    return (bank.value(object_id)[:, 0] - object_id).tolist()


def test_when_frames_are_put_in_any_order_then_rows_are_in_frame_order():
    bank = Bank()
    for frame in (1042, -3, 1001):
        bank.put(frame, rows(frame))
    assert bank.frames == (-3, 1001, 1042)
    assert frames_in_values(bank) == [-3, -3, 1001, 1001, 1042, 1042]


def test_when_the_second_frame_is_put_again_then_only_its_rows_change():
    bank = Bank()
    for frame in (10, 20, 30):
        bank.put(frame, rows(frame))
    bank.put(20, rows(99))
    assert bank.frames == (10, 20, 30)
    assert frames_in_values(bank) == [10, 10, 99, 99, 30, 30]


def test_when_a_frame_is_removed_then_its_neighbours_keep_theirs():
    bank = Bank()
    for frame in (10, 20, 30):
        bank.put(frame, rows(frame))
    bank.remove(20)
    bank.remove(77)
    assert bank.frames == (10, 30)
    assert frames_in_values(bank) == [10, 10, 30, 30]
    assert bank.features().shape == (4, 7)


def test_when_an_object_is_not_given_at_a_frame_then_it_has_no_rows_there():
    bank = Bank()
    bank.put(1, rows(1, objects=(1,)))
    bank.put(2, rows(2, objects=(1, 7)))
    assert bank.object_ids == (1, 7)
    assert bank.given(7).tolist() == [False, False, True, True]
    assert bank.value(7)[:, 0].tolist() == [0, 0, 9, 9]


def test_when_rows_are_dropped_then_usage_and_objects_follow():
    bank = Bank()
    bank.append(1, rows(1))
    bank.append(2, rows(2))
    bank.record_usage(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    bank.keep_rows(torch.tensor([True, False, False, False]))
    assert bank.frames == (1,)
    assert bank.size == 1
    assert bank.counters()[0].tolist() == [4.0]
    assert abs(bank.usage().item() - 4.0) < 1e-5
