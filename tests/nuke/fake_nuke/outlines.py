"""Roto shapes: ``nuke.rotopaint`` as far as it was measured in 17.1, and the polygons they draw."""
# ruff: noqa: A002, N802, N815, SIM118 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

import json

import numpy as np

from . import state
from .curves import AnimationCurve
from .knobs import Knob

_SUPERSAMPLES = 4  # per side: 16 shades of edge


class CurvePoint:
    """An AnimControlPoint: x and y over time. A point that was never keyed stands still."""

    dim = 3

    def __init__(self, x=0.0, y=0.0):
        self._still = (float(x), float(y))
        self._x, self._y = AnimationCurve(), AnimationCurve()

    def addPositionKey(self, time, position):
        for curve, value in zip((self._x, self._y), position, strict=False):
            curve.setKey(time, value)
            curve.changeInterpolation(curve.keys(), 2)  # the tests draw linear; curved motion is not modelled
        state.app().note_edit()

    def getControlPointKeyTimes(self):
        return [key.x for key in self._x.keys()]

    def removeKey(self, time):
        for curve in (self._x, self._y):
            curve._keys = [key for key in curve._keys if key.x != time]
        state.app().note_edit()

    def _at(self, frame):
        return (self._x.evaluate(frame), self._y.evaluate(frame)) if self._x.size() else self._still

    def _save(self):
        return [self._still, self._x.toScript(), self._y.toScript()]

    @classmethod
    def _load(cls, saved):
        point = cls(*saved[0])
        for curve, text in ((point._x, saved[1]), (point._y, saved[2])):
            curve._read(text.split())
        return point


class ShapePoint:
    """A ShapeControlPoint; tangents and feather stay at nought, so outlines are polygons."""

    def __init__(self, x=0.0, y=0.0):
        self.center = CurvePoint(x, y)
        self.leftTangent, self.rightTangent, self.featherCenter = CurvePoint(), CurvePoint(), CurvePoint()


class Transform:
    """An AnimCTransform that can be keyed in translation."""

    def __init__(self):
        self._times = []

    def addTransformKey(self, time):
        self._times.append(float(time))
        state.app().note_edit()

    def getTransformKeyTimes(self):
        return list(self._times)


class Attributes:
    """AnimAttributes: named numbers that do not change over time here."""

    kLifeTimeTypeAttribute, kLifeTimeNAttribute, kLifeTimeMAttribute = "ltt", "ltn", "ltm"
    kVisibleAttribute = "vis"

    def __init__(self):
        self._values = {}

    def __contains__(self, name):
        return name in self._values

    def set(self, _time, name, value, _view="main"):
        self._values[name] = float(value)
        state.app().note_edit()

    def getValue(self, _time, name, view="main"):
        if not isinstance(view, str):
            raise TypeError("the view is a name")
        return self._values[name]


class Element:
    """What shapes, strokes and layers share."""

    def __init__(self):
        self.name = ""
        self._transform, self._attributes = Transform(), Attributes()
        self._hidden = set()
        self._always_hidden = False

    def getTransform(self):
        return self._transform

    def getAttributes(self):
        return self._attributes

    def getVisible(self, time):
        return not self._always_hidden and time not in self._hidden

    def setVisible(self, time, visible):
        if visible:
            self._hidden.discard(time)
        else:
            self._hidden.add(time)
        state.app().note_edit()


class _Sequence(Element):
    def __init__(self):
        super().__init__()
        self._items = []

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


class Stroke(_Sequence):
    """A brush stroke; it can be listed, not drawn."""

    def append(self, point):
        self._items.append(CurvePoint._load(point._save()))
        state.app().note_edit()


class Shape(_Sequence):
    """A closed outline. ``append`` copies: fetch the point again to go on with it."""

    def __init__(self, curves, type="bezier"):
        super().__init__()
        if type != "bezier":
            raise NotImplementedError(f"the double does not model {type} shapes")
        del curves

    def append(self, point):
        made = ShapePoint()
        made.center = CurvePoint._load((point.center if isinstance(point, ShapePoint) else point)._save())
        self._items.append(made)
        state.app().note_edit()


class Layer(_Sequence):
    """A folder of shapes. ``append`` copies: fetch the element again to go on with it."""

    def __init__(self, curves=None):
        super().__init__()
        del curves

    def append(self, element):
        self._items.append(_load(_save(element)))
        state.app().note_edit()


class RotoKnob(Knob):
    """The ``curves`` knob. Its script text is this double's own, not Nuke's."""

    def __init__(self, name="", label=None):
        super().__init__(name, label)
        self._root = Layer()

    @property
    def rootLayer(self):
        return self._root

    def changed(self):
        state.app().note_edit()

    def _script(self):
        return json.dumps(_save(self._root)) if len(self._root) else ""

    def _read(self, text):
        self._root = _load(json.loads(text)) if text else Layer()

    def _hash_value(self, frame):
        return [
            [point.center._at(frame) for point in shape] for shape in _walk(self._root) if isinstance(shape, Shape)
        ] + [shape.getVisible(frame) for shape in _walk(self._root)]


def draw_shapes(curves, frame, shape_format):
    """Give the anti-aliased coverage of all visible shapes, HxW float32 0..1, rows from the top down."""
    height, width = shape_format.height(), shape_format.width()
    drawn = np.zeros((height, width), np.float32)
    for shape in _walk(curves._root):
        if not shape.getVisible(frame):
            continue
        if not isinstance(shape, Shape) or shape.getTransform().getTransformKeyTimes():
            raise NotImplementedError("the double draws shapes that are not transformed, and no strokes")
        corners = np.array([point.center._at(frame) for point in shape])
        drawn = np.maximum(drawn, _cover(corners, height, width))
    return drawn


def _cover(corners, height, width):
    """Give the share of each pixel that lies inside a polygon, by samples at even distances; rows from the top down."""
    ys = (np.arange(height * _SUPERSAMPLES) + 0.5)[::-1, None] / _SUPERSAMPLES
    xs = (np.arange(width * _SUPERSAMPLES) + 0.5)[None, :] / _SUPERSAMPLES
    inside = np.zeros((ys.size, xs.size), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crosses = (y0 <= ys) != (y1 <= ys)
        if y0 != y1:
            inside ^= crosses & (xs < x0 + (x1 - x0) * (ys - y0) / (y1 - y0))
    cells = inside.reshape(height, _SUPERSAMPLES, width, _SUPERSAMPLES)
    return cells.mean(axis=(1, 3), dtype=np.float32)


def _walk(layer):
    for element in layer:
        if isinstance(element, Layer):
            yield from _walk(element)
        else:
            yield element


def _save(element):
    common = {
        "name": element.name,
        "times": element._transform._times,
        "attributes": element._attributes._values,
        "hidden": sorted(element._hidden),
        "always_hidden": element._always_hidden,
    }
    if isinstance(element, Layer):
        return {**common, "layer": [_save(item) for item in element]}
    if isinstance(element, Stroke):
        return {**common, "stroke": [point._save() for point in element]}
    points = [
        [point.center._save(), point.leftTangent._save(), point.rightTangent._save(), point.featherCenter._save()]
        for point in element
    ]
    return {**common, "shape": points}


def _load(saved):
    if "layer" in saved:
        element = Layer()
        element._items = [_load(item) for item in saved["layer"]]
    elif "stroke" in saved:
        element = Stroke()
        element._items = [CurvePoint._load(point) for point in saved["stroke"]]
    else:
        element = Shape(None)
        for parts in saved["shape"]:
            point = ShapePoint()
            point.center, point.leftTangent, point.rightTangent, point.featherCenter = map(CurvePoint._load, parts)
            element._items.append(point)
    element.name = saved["name"]
    element._transform._times = list(saved["times"])
    element._attributes._values = dict(saved["attributes"])
    element._hidden, element._always_hidden = set(saved["hidden"]), saved["always_hidden"]
    return element
