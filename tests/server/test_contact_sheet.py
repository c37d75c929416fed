import numpy as np

from xmem_server.contact_sheet import PANEL, SheetRow, fetch_panel_size, fetch_sheet, pick_frames


def test_when_frames_are_picked_then_keys_come_first_and_the_rest_fills_the_gaps():
    assert pick_frames(range(1001, 1010), (1001, 1009), 3) == (1001, 1005, 1009)
    assert pick_frames(range(1001, 1010), (1001,), 3) == (1001, 1005, 1009)
    assert pick_frames((1, 2), (), 8) == (1, 2)
    assert pick_frames((), (), 8) == ()


def test_when_there_are_more_keys_than_rows_then_they_are_chosen_evenly_with_both_ends():
    assert pick_frames(range(100), range(0, 100, 10), 4) == (0, 30, 60, 90)


def test_when_a_key_is_not_among_the_frames_then_it_is_not_picked():
    assert pick_frames((5, 6, 7), (1, 6), 1) == (6,)


def test_when_a_picture_has_wide_pixels_then_the_panel_shows_them_square():
    assert fetch_panel_size(1000, 1000, 2.0) == (PANEL[0], PANEL[0] // 2)
    assert fetch_panel_size(100, 50, 1.0) == (100, 50)


def test_when_a_sheet_is_made_then_alpha_is_grey_and_the_edge_is_drawn():
    picture = np.full((60, 80, 3), 0.25, np.float32)
    alpha = np.zeros((60, 80), np.float32)
    alpha[20:40, 30:50] = 1.0
    sheet = fetch_sheet("title", [SheetRow(1001, picture, {1: alpha}, is_key=True)], (80, 60))
    top, left = sheet.shape[0] - 66, sheet.shape[1] - 3 * 86
    plate, edge, grey = (sheet[top : top + 60, left + 86 * place :][:, :80] for place in range(3))
    assert (plate == 64).all()
    assert (edge[20, 30:50] != 64).any()
    assert (edge[28:32, 36:44] == 64).all()
    assert grey[30, 40].tolist() == [255, 255, 255]
    assert grey[5, 5].tolist() == [0, 0, 0]


def test_when_two_objects_are_shown_then_each_has_its_colour():
    picture = np.zeros((20, 20, 3), np.float32)
    left, right = np.zeros((2, 20, 20), np.float32)
    left[:, :8], right[:, 12:] = 1.0, 1.0
    sheet = fetch_sheet("", [SheetRow(1, picture, {1: left, 2: right}, is_key=False)], (20, 20))
    alpha = sheet[-26:-6, -26:-6]
    assert not np.array_equal(alpha[10, 2], alpha[10, 18])
    assert alpha[10, 10].tolist() == [0, 0, 0]
