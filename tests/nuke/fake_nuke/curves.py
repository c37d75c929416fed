"""Animation curves of knobs: keys, their script text, and their values where the double can be sure of them."""
# ruff: noqa: N802 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

from .constants import CONSTANT, LINEAR, SMOOTH

_LETTERS = {"K": CONSTANT, "L": LINEAR, "C": SMOOTH, "S": SMOOTH}


class AnimationKey:
    """One key: ``x`` frame, ``y`` value, ``interpolation`` one of nuke.CONSTANT, LINEAR, SMOOTH."""

    def __init__(self, x, y, interpolation=SMOOTH):
        self.x, self.y, self.interpolation = float(x), float(y), interpolation


class AnimationCurve:
    """The curve of one channel of a knob."""

    def __init__(self, changed=lambda: None):
        self._keys: list[AnimationKey] = []
        self._changed = changed

    def keys(self):
        return list(self._keys)

    def size(self):
        return len(self._keys)

    def setKey(self, t, y):
        found = self._find(t)
        if found:
            found.y = float(y)
        else:
            found = AnimationKey(t, y, self._keys[-1].interpolation if self._keys else SMOOTH)
            self._insert(found)
        self._changed()
        return found

    def addKey(self, keys):
        for key in keys if isinstance(keys, (list, tuple)) else [keys]:
            self._keys = [old for old in self._keys if old.x != key.x]
            self._insert(key)
        self._changed()

    def removeKey(self, keys):
        for key in keys if isinstance(keys, (list, tuple)) else [keys]:
            self._keys.remove(key)
        self._changed()

    def changeInterpolation(self, keys, interpolation):
        for key in keys:
            key.interpolation = interpolation
        self._changed()

    def clear(self):
        self._keys = []
        self._changed()

    def evaluate(self, t):
        if not self._keys:
            return 0.0
        before = [key for key in self._keys if key.x <= t]
        after = [key for key in self._keys if key.x > t]
        if not before or not after:
            return (before or after)[-1 if before else 0].y
        left, right = before[-1], after[0]
        if left.x == t or left.interpolation == CONSTANT or left.y == right.y:
            return left.y
        if left.interpolation == LINEAR:
            return left.y + (right.y - left.y) * (t - left.x) / (right.x - left.x)
        raise NotImplementedError("the double does not model smooth interpolation; set the keys to CONSTANT or LINEAR")

    def toScript(self, _selected=False):
        return " ".join(_script_words(self._keys))

    def fromScript(self, text):
        self._read(text.split())
        self._changed()

    def _find(self, t):
        return next((key for key in self._keys if key.x == t), None)

    def _insert(self, key):
        self._keys = sorted([*self._keys, key], key=lambda key: key.x)

    def _read(self, words):
        if words[:1] != ["curve"]:
            raise ValueError(f"{' '.join(words)!r} is not a curve")
        self._keys, interpolation, frame = [], SMOOTH, None
        for word in words[1:]:
            if word in _LETTERS:
                interpolation = _LETTERS[word]
            elif word.startswith("x"):
                frame = float(word[1:])
            else:
                if frame is None:
                    raise ValueError("a curve's first key has no frame")
                self._insert(AnimationKey(frame, float(word), interpolation))
                frame += 1  # keys on consecutive frames may leave x out


def _script_words(keys):
    letters = {CONSTANT: "K", LINEAR: "L", SMOOTH: "C"}
    words, last = ["curve"], None
    for key in keys:
        if key.interpolation != last:
            words.append(letters[key.interpolation])
            last = key.interpolation
        words += [f"x{key.x:g}", f"{key.y:g}"]
    return words
