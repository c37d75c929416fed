"""The double itself: it must refuse what Nuke refuses, and give back what it was given."""

import ast
import gc
import importlib.util
import threading
from pathlib import Path

import pytest

from tests.nuke.scenes import make_roto

# A submodule, and a second name of execute: the public stubs list neither.
NOT_IN_STUBS = {"rotopaint", "render"}


# ------------------------------------------------------------------------------------------------------------ strictness


def test_when_a_class_is_unknown_then_it_cannot_be_made(nuke):
    with pytest.raises(RuntimeError, match="NoSuchNode: Unknown command"):
        nuke.createNode("NoSuchNode")


def test_when_a_knob_is_unknown_then_it_cannot_be_had(nuke):
    with pytest.raises(NameError, match="knob create_dirs does not exist"):
        nuke.nodes.Write()["create_dirs"]


def test_when_an_enumeration_has_no_such_entry_then_it_cannot_be_set(nuke):
    with pytest.raises(ValueError, match="blak"):
        nuke.nodes.Read()["before"].setValue("blak")


def test_when_a_name_is_unknown_then_it_is_an_error(nuke):
    for owner in (nuke, nuke.root(), nuke.root()["frame"]):
        with pytest.raises(AttributeError):
            owner.noSuchName()


def test_when_a_file_type_is_not_set_then_its_knobs_are_not_there(nuke):
    write = nuke.nodes.Write()
    assert write.knob("datatype") is None
    write["file_type"].setValue("exr")
    assert write["datatype"].value() == "16 bit half"


def test_when_another_thread_touches_a_node_then_it_is_an_error_even_if_swallowed(nuke, application):
    node, caught = nuke.nodes.NoOp(), []

    def touch():
        for call in (
            lambda: node.name(),  # noqa: PLW0108 - it is asking for the attribute that must fail
            lambda: node["label"],
            lambda: nuke.toNode("NoOp1"),
            nuke.root,
            nuke.nodes.NoOp,
        ):
            try:
                call()
            except RuntimeError as error:
                caught.append(str(error))

    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
    assert len(caught) == 5
    assert len(application.complaints()) == 5
    application.rules.broken.clear()


def test_when_a_node_is_deleted_then_it_answers_nothing(nuke):
    node = nuke.nodes.NoOp()
    nuke.delete(node)
    with pytest.raises(ValueError, match="not attached to a node"):
        node.name()


def test_when_the_edition_is_limited_then_the_eleventh_node_cannot_be_seen(nuke, application):
    nodes = [nuke.nodes.NoOp() for _ in range(11)]
    application.limit_nodes()
    for node in nodes[:10]:
        node.name()
    nodes[0].name()
    with pytest.raises(RuntimeError, match="shows Python 10 nodes"):
        nodes[10].name()


def test_when_there_is_no_window_then_there_are_no_menus_and_no_event_loop(nuke, application):
    nuke.GUI = False
    with pytest.raises(RuntimeError, match="GUI"):
        nuke.menu("Nuke")
    with pytest.raises(RuntimeError, match="nuke -t"):
        application.pump()


def test_when_a_test_leaves_a_mess_then_the_double_complains(nuke, application):
    nuke.Undo.disable()
    task = nuke.ProgressTask("Sending")
    nuke.nodes.Group().begin()
    complaints = application.complaints()
    assert [word in " ".join(complaints) for word in ("disabled", "begun", "Sending")] == [True] * 3
    nuke.Undo.enable()
    application.groups.pop()
    del task
    gc.collect()
    assert application.complaints() == []


# ---------------------------------------------------------------------------------------------------------- main thread


def test_when_a_thread_posts_then_the_event_loop_runs_it_on_the_main_thread(nuke, application):
    seen = []
    thread = threading.Thread(target=nuke.executeInMainThread, args=(lambda: seen.append(threading.current_thread()),))
    thread.start()
    thread.join()
    assert seen == []
    application.pump(lambda: bool(seen))
    assert seen == [threading.main_thread()]


def test_when_a_list_is_given_as_arguments_then_it_is_one_argument(nuke, application):
    seen = []
    nuke.executeInMainThread(seen.append, args=[1, 2])
    application.pump()
    assert seen == [[1, 2]]


def test_when_a_thread_waits_for_a_result_then_it_gets_it(nuke, application):
    results = []
    thread = threading.Thread(target=lambda: results.append(nuke.executeInMainThreadWithResult(lambda: 7)))
    thread.start()
    application.pump(lambda: bool(results))
    thread.join()
    assert results == [7]


def test_when_the_main_thread_waits_for_itself_then_it_is_an_error(nuke):
    with pytest.raises(RuntimeError, match="deadlock"):
        nuke.executeInMainThreadWithResult(lambda: 1)


# ------------------------------------------------------------------------------------------------------------ callbacks


def noise(nuke, name):
    heard = []
    nuke.addKnobChanged(lambda: heard.append(nuke.thisKnob().name()), nodeClass=name)
    return heard


def test_when_anything_changes_in_17_1_then_knob_changed_hears_it(nuke):
    heard = noise(nuke, "NoOp")
    node = nuke.nodes.NoOp()
    node["label"].setValue("a")
    node.setXYpos(5, 6)
    node.setInput(0, nuke.nodes.Dot())
    node.showControlPanel()
    assert heard == ["label", "xpos", "ypos", "inputChange", "showPanel"]


def test_when_a_program_changes_a_knob_in_16_then_only_an_open_panel_hears_it(nuke, application):
    application.callbacks.is_noisy = False
    heard = noise(nuke, "NoOp")
    node = nuke.nodes.NoOp()
    node["label"].setValue("a")
    application.set_as_artist(node["label"], "b")
    assert heard == ["label"]


def test_when_a_callback_renders_or_edits_the_graph_then_nuke_refuses(nuke, application):
    node, refusals = nuke.nodes.NoOp(), []

    def edit():
        for call in (nuke.nodes.Dot, lambda: nuke.execute(node, 1, 1), lambda: node.setInput(0, None)):
            with pytest.raises(RuntimeError, match="already executing"):
                call()
            refusals.append(1)

    nuke.addKnobChanged(edit, nodeClass="NoOp")
    node["label"].setValue("a")
    assert len(refusals) == 3


def test_when_a_callback_fails_then_nuke_goes_on_and_the_double_remembers(nuke, application):
    node = nuke.nodes.NoOp(knobChanged="1/0")
    node["label"].setValue("a")
    assert "ZeroDivisionError" in application.complaints()[0]
    application.callbacks.errors.clear()


# ------------------------------------------------------------------------------------------------------- knobs, scripts


def test_when_a_curve_is_read_then_its_keys_hold_until_the_next(nuke):
    node = nuke.createNode("XMem")
    keyed = node["keyed"]
    keyed.fromScript("{curve K x1001 1 x1010 0}")
    assert (keyed.getKeyList(), keyed.isKeyAt(1001), keyed.isKeyAt(1002)) == ([1001, 1010], True, False)
    assert [keyed.getValueAt(frame) for frame in (1000, 1001, 1009, 1010, 1020)] == [1, 1, 1, 0, 0]
    assert keyed.toScript() == "{curve K x1001 1 x1010 0}"
    keyed.clearAnimated()
    assert not keyed.isAnimated()


def test_when_the_interpolation_is_not_known_then_no_value_is_made_up(nuke):
    knob = nuke.nodes.Switch()["which"]
    knob.fromScript("{curve x1 0 x3 2}")
    with pytest.raises(NotImplementedError, match="smooth"):
        knob.getValueAt(2)


def test_when_knobs_have_expressions_then_they_follow_what_they_name(nuke):
    switch, other = nuke.nodes.Switch(), nuke.nodes.Switch(which=3)
    switch["which"].setExpression("Switch2.which + root.first_frame * 2 - (frame > 5 ? 1 : 0)")
    assert switch["which"].value() == 5
    nuke.root().setFrame(6)
    assert switch["which"].value() == 4
    other["which"].setValue(0)
    assert switch["which"].value() == 1


def test_when_changes_are_one_undo_step_then_one_undo_takes_them_back(nuke, application):
    node = nuke.nodes.NoOp(label="before")
    steps = len(application.undo.steps)
    with nuke.Undo("two knobs"):
        node["label"].setValue("after")
        node["icon"].setValue("x.png")
    assert [name for name, _ in application.undo.steps[steps:]] == ["two knobs"]
    nuke.undo()
    assert (node["label"].value(), node["icon"].value()) == ("before", "")


def test_when_a_graph_is_saved_and_loaded_then_it_is_the_same_text(nuke, application):
    plate = nuke.nodes.Constant(color=[0.1, 0.2, 0.3, 0])
    roto = make_roto(nuke, {1: (1, 2, 3), 5: (4, 5, 6)}, background=plate)
    grade = nuke.nodes.Grade(multiply=2, label='a "quoted" {label} \\ [with] $all\nof it')
    grade.setInput(0, plate)
    grade.setInput(1, roto)
    copy = nuke.nodes.Copy()
    copy.setInput(1, grade)
    text = application.write_text()
    application.read_text(text)
    loaded = nuke.toNode("Grade1")
    assert [source.name() for source in loaded.dependencies()] == ["Constant1", "Roto1"]
    assert loaded["label"].value() == 'a "quoted" {label} \\ [with] $all\nof it'
    assert nuke.toNode("Copy1").input(0) is None
    assert nuke.toNode("Roto1")["curves"].rootLayer[0][1].center.getControlPointKeyTimes() == [1, 5]
    assert [line for line in application.write_text().split("\n") if "N" not in line] == [
        line for line in text.split("\n") if "N" not in line
    ]


def test_when_a_node_is_copied_and_pasted_then_there_are_two_with_names_of_their_own(nuke):
    nuke.nodes.Grade(multiply=2).selectOnly()
    nuke.nodeCopy("%clipboard%")
    pasted = nuke.nodePaste("%clipboard%")
    assert (pasted.name(), pasted["multiply"].value()) == ("Grade2", [2, 2, 2, 2])
    assert nuke.selectedNodes() == [pasted]


def test_when_nodes_are_made_by_hand_then_they_join_what_is_selected_and_others_do_not(nuke):
    first = nuke.createNode("Dot")
    assert nuke.createNode("Grade").input(0) is first
    assert nuke.nodes.Grade().input(0) is None


# ---------------------------------------------------------------------------------------------------- files and stubs


@pytest.mark.parametrize(("datatype", "top"), [("8 bit", 255), ("16 bit", 65535)])
def test_when_a_png_is_written_then_it_is_read_back_in_the_same_colours(nuke, application, tmp_path, datatype, top):
    write = nuke.nodes.Write(file_type="png", file=f"{tmp_path}/a.png", raw=True)
    write["datatype"].setValue(datatype)
    write.setInput(0, nuke.nodes.Constant(format="4 3 0 0 4 3 1", color=[0.2, 1.5, -1, 0]))
    nuke.execute(write, 1, 1)
    read = nuke.nodes.Read(file=f"{tmp_path}/a.png", first=1, last=1, raw=True)
    channels = application.fetch_picture(read, 1).channels
    got = [float(channels[f"rgba.{name}"][0, 0]) for name in ("red", "green", "blue")]
    assert got == pytest.approx([round(0.2 * top) / top, 1, 0])


def test_when_a_render_is_asked_for_with_a_missing_folder_then_it_fails_as_nuke_does(nuke, tmp_path):
    write = nuke.nodes.Write(file_type="exr", file=f"{tmp_path}/none/a.exr", raw=True)
    write.setInput(0, nuke.nodes.Constant())
    with pytest.raises(RuntimeError, match="No such file"):
        nuke.execute(write, 1, 1)
    write["create_directories"].setValue(True)
    nuke.execute(write, nuke.FrameRanges([1]))
    assert Path(tmp_path, "none", "a.exr").is_file()
    assert not list(tmp_path.rglob("*.tmp"))


# ------------------------------------------------------------------------------------------------------------------ stubs


def stub_names():
    """Give the names of the public stubs: of the module, and of the classes of ``nuke`` and of ``nuke.rotopaint``."""
    spec = importlib.util.find_spec("mypy")
    folder = Path(spec.origin).parents[1] / "nuke-stubs" if spec else Path()
    if not folder.is_dir():
        pytest.skip("types-nuke is not installed")
    module, classes, roto_classes = set(), {}, {}
    for path in folder.glob("*.pyi"):
        into = roto_classes if path.stem in ("_curvelib", "_curveknob") else classes
        for item in ast.parse(path.read_text("utf-8")).body:
            if isinstance(item, ast.ClassDef):
                into[item.name] = (bases_of(item), members_of(item))
            module.add(item.target.id if isinstance(item, ast.AnnAssign) else getattr(item, "name", ""))
    return module, classes, roto_classes


def bases_of(item):
    return {base.id for base in item.bases if isinstance(base, ast.Name)}


def members_of(item):
    names = {part.name for part in item.body if isinstance(part, ast.FunctionDef)}
    return names | {part.target.id for part in item.body if isinstance(part, ast.AnnAssign)}


def class_names(classes, name):
    bases, names = classes.get(name, (set(), set()))
    return names.union(*(class_names(classes, base) for base in bases))


def test_when_the_double_is_compared_with_the_public_stubs_then_it_has_no_name_that_they_lack(nuke):
    module, classes, roto_classes = stub_names()
    public = {name for name in vars(nuke) if not name.startswith("_")}
    assert public - module - NOT_IN_STUBS == set()
    for owner, known in ((nuke, classes), (nuke.rotopaint, roto_classes)):
        for name, found in vars(owner).items():
            if isinstance(found, type):
                extra = public_members(found) - class_names(known, name)
                assert not extra, f"{name}: {sorted(extra)}"


def public_members(found):
    ours = [cls for cls in found.__mro__ if cls.__module__.startswith("tests.")]
    return {word for cls in ours for word in vars(cls) if not word.startswith("_")}
