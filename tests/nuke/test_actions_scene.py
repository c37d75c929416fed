"""The whole way on the double of Nuke with the real server and the compact model: script in; nodes, knobs, curves, pixels out."""

from pathlib import Path

import numpy as np
import pytest

from tests.nuke.comp import FIRST, LAST, RealServer, comp_of, marks
from tests.nuke.scenes import make_roto, make_xmem, read_exr

FRAMES = range(FIRST, LAST + 1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RealServer(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


@pytest.fixture
def comp(application, tmp_path, server):
    with comp_of(application, tmp_path, server.connection_file) as comp:
        yield comp


def check_alpha(comp, node=None):
    """The alpha of the node is the server's matte on every frame, and the artist's own alpha on the keys."""
    node = node or comp.node
    folder = Path(node["matte_file"].value()).parent
    assert folder.parent.name == node["session"].value()
    for frame in FRAMES:
        channels, _ = read_exr(folder / f"{frame:05d}.exr")
        np.testing.assert_array_equal(comp.alpha(frame, node), channels["A"].astype(np.float32))
    for frame in comp.keys:
        drawn = comp.alpha(frame, comp.roto)
        assert drawn.max() == 1
        np.testing.assert_array_equal(comp.alpha(frame, node), drawn.astype(np.float16))


def test_when_the_artist_works_through_a_shot_then_mattes_suggestions_and_updates_are_right(comp, application):
    assert comp.do("run") == [*(f"key {frame}" for frame in comp.keys), *(f"plate {frame}" for frame in FRAMES)]
    assert comp.status.startswith(f"Done: mattes on frames {FIRST} to {LAST}; 3 keys and 6 plate frames travelled.")
    assert marks(comp.node["keyed"]) == [1001, 1003, 1006]
    check_alpha(comp)

    comp.node["suggest_count"].setValue(2)
    assert comp.do("suggest") == []
    suggested = marks(comp.node["suggested"])
    assert suggested == sorted({row.frame for row in comp.state.suggestions})
    assert [row.kind for row in comp.state.suggestions].count("different") <= 2 <= len(suggested)
    assert not set(suggested) & set(comp.keys)
    assert comp.state.suggestions[0].reason in comp.status
    comp.press("next_suggestion")
    assert comp.nuke.frame() == suggested[0]
    comp.press("next_suggestion")
    assert comp.nuke.frame() == suggested[1]
    comp.press("previous_suggestion")
    assert comp.nuke.frame() == suggested[0]

    comp.draw(1003, (16, 12, 16))
    assert comp.do("update") == ["key 1003"]
    assert (comp.state.sent_keys, comp.state.sent_plates) == (1, 0)
    check_alpha(comp)

    comp.grade["multiply"].setValue(1.5)
    assert comp.do("update") == [f"plate {frame}" for frame in FRAMES]
    assert comp.state.sent_keys == 0
    check_alpha(comp)
    assert application.main_thread.longest_hold < 1.0  # nothing that waits for the server is among it
    assert application.undo.depth == 0


def test_when_a_key_is_added_here_and_removed_there_then_the_server_has_just_these(comp):
    comp.do("run")
    comp.nuke.root().setFrame(1002)
    comp.press("add_key")
    comp.nuke.root().setFrame(1003)
    comp.press("remove_key")
    assert comp.do("update") == ["key 1002"]
    assert marks(comp.node["keyed"]) == [1001, 1002, 1006]


def test_when_the_script_is_saved_and_loaded_again_then_it_still_plays_and_knows_what_it_sent(comp, application):
    comp.do("run")
    session = comp.session
    text = application.write_text()
    application.read_text(text)
    comp.node = comp.nuke.toNode("XMem1")
    comp.roto = comp.nuke.toNode("Roto1")
    assert comp.session == session
    check_alpha(comp)
    assert comp.do("run") == []
    assert comp.status.startswith("Done")


def test_when_the_node_is_copied_then_the_copy_is_a_session_of_its_own_and_the_first_is_untouched(comp, application):
    comp.do("run")
    session = comp.session
    comp.node.selectOnly()
    comp.nuke.nodeCopy("%clipboard%")
    copy = comp.nuke.nodePaste("%clipboard%")
    assert comp.session == session
    assert copy["session"].value() not in ("", session)
    assert copy["matte_file"].value() == ""
    assert marks(copy["keyed"]) == []
    assert "Press Run" in copy["status"].value()
    copy.setInput(0, comp.grade)
    copy.setInput(1, comp.roto)
    application.act(copy["run"].execute)
    comp.wait()
    check_alpha(comp)
    check_alpha(comp, copy)


def test_when_two_nodes_run_at_once_on_one_server_then_each_gets_its_own_mattes(comp, application):
    other = make_xmem(comp.nuke, comp.grade, comp.roto, FIRST, LAST, comp.folder / "cache with spaces")
    other["server"].setValue(comp.node["server"].value())
    comp.press("run")
    comp.press("run", other)
    comp.wait()
    for node, folder in ((comp.node, "cache"), (other, "cache with spaces")):
        assert node["status"].value().startswith("Done"), node["status"].value()
        assert node["matte_file"].value().startswith((comp.folder / folder).as_posix())
        assert marks(node["keyed"]) == list(comp.keys)
        check_alpha(comp, node)
    names = [path for path, _ in application.renders.done]
    assert len(names) == len(set(names)) == 2 * (len(comp.keys) + len(FRAMES))


def test_when_all_objects_are_wanted_as_layers_then_one_file_carries_them(comp):
    comp.node["output_mode"].setValue("Layers")
    comp.do("run")
    assert comp.node["layers_file"].value().endswith("/layers/%05d.exr")
    assert comp.node["matte_file"].value() == ""
    picture = comp.application.fetch_picture(comp.node, 1003)
    assert "object_1.alpha" in picture.channels
    drawn = comp.alpha(1003, comp.roto)
    np.testing.assert_array_equal(picture.channels["object_1.alpha"], drawn.astype(np.float16))


def test_when_two_objects_have_a_channel_each_then_one_render_a_key_carries_both_and_each_gets_its_mattes(comp):
    comp.roto["output"].setValue("rgba.red")
    second = make_roto(comp.nuke, {1001: (36, 20, 12), 1006: (40, 20, 12)}, background=comp.roto)
    second["output"].setValue("rgba.green")
    comp.node.setInput(1, second)
    comp.node["objects"].setValue("1=red; 2=green")
    assert comp.do("run") == [*(f"key {frame}" for frame in comp.keys), *(f"plate {frame}" for frame in FRAMES)]
    assert comp.status.startswith("Done"), comp.status
    assert [row.objects for row in comp.state.keys] == [(1, 2), (1,), (1, 2)]  # as the two rotos are keyed
    second["curves"].rootLayer[0][0].center.addPositionKey(1003, (37, 20))
    assert comp.do("update") == ["key 1003"]
    assert [row.objects for row in comp.state.keys] == [(1, 2)] * 3
    drawn = comp.application.fetch_picture(second, 1006).channels
    np.testing.assert_array_equal(comp.alpha(1006), drawn["rgba.red"].astype(np.float16))
    comp.application.set_as_artist(comp.node["show_object"], 2)
    np.testing.assert_array_equal(comp.alpha(1006), drawn["rgba.green"].astype(np.float16))
    folder = comp.folder / "cache" / comp.session
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ["1", "2"]
