"""What each shape looks like at any size, place and turn, to compare pictures with."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from janus_core.evaluation.scene import SHAPES
from janus_core.evaluation.shapes import HOLE, POLYGONS, Point

Floats = NDArray[np.float32]

_DIRECTIONS = 360
_PERIODS = {"square": 90, "triangle": 120, "star": 72, "cross": 90}
_TURNS = 12


def match(cover_HW: Floats) -> tuple[str, float, Point, float]:
    """The shape that a crop shows best, sharp or slightly blurred.

    Args:
        cover_HW: how much of every pixel the object covers, 0 to 1; its edges inside the crop.
    Returns: shape; radius of its circumscribed circle in pixels; centre (x, y); overlap with the shape, 0 to 1.
    """
    area = float(cover_HW.sum())
    ys, xs = np.mgrid[: cover_HW.shape[0], : cover_HW.shape[1]].astype(np.float32)
    x, y = float((xs * cover_HW).sum()) / area, float((ys * cover_HW).sum()) / area
    distance_HW = np.hypot(xs - x, ys - y)
    direction_HW = np.degrees(np.arctan2(ys - y, xs - x)).astype(np.int32) % _DIRECTIONS
    radii = {shape: math.sqrt(area / _area(shape)) for shape in SHAPES}
    overlaps = {}
    for shape, radius in radii.items():
        sharp_THW = _draw(shape, radius, distance_HW, direction_HW)
        overlaps[shape] = max(_overlap(sharp_THW, cover_HW), _overlap(_blurred(sharp_THW), cover_HW))
    shape = max(overlaps, key=lambda shape: overlaps[shape])
    return shape, radii[shape], (x, y), overlaps[shape]


def _draw(shape: str, radius: float, distance_HW: Floats, direction_HW: NDArray[np.int32]) -> Floats:
    """[T, H, W]: what the shape covers at every turn."""
    if shape in POLYGONS:
        return _ramp(radius * _profiles(shape)[:, direction_HW] - distance_HW)
    disc_HW = _ramp(radius - distance_HW)
    return (disc_HW if shape == "circle" else disc_HW - _ramp(HOLE * radius - distance_HW))[None]


def _overlap(template_THW: Floats, cover_HW: Floats) -> float:
    """Shared over joint coverage, at the best turn."""
    shared_T = np.minimum(template_THW, cover_HW).sum(axis=(1, 2))
    joint_T = np.maximum(template_THW, cover_HW).sum(axis=(1, 2))
    return float((shared_T / joint_T).max())


def _blurred(template_THW: Floats) -> Floats:
    padded = np.pad(template_THW, ((0, 0), (1, 1), (1, 1)))
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    rows = columns[:, :, :-2] + 2 * columns[:, :, 1:-1] + columns[:, :, 2:]
    return np.asarray(rows / 16, dtype=np.float32)


def _ramp(inside: Floats) -> Floats:
    """Coverage of a pixel whose middle is so far inside an edge."""
    return np.asarray(np.clip(inside + 0.5, 0, 1), dtype=np.float32)


@lru_cache
def _profiles(shape: str) -> Floats:
    """[T, 360]: how far a polygon of radius 1 reaches in every direction, at T turns over its period."""
    reach = np.array([_reach(POLYGONS[shape], math.radians(degree + 0.5)) for degree in range(_DIRECTIONS)])
    turns = (np.arange(_TURNS) * _PERIODS[shape] / _TURNS).round().astype(int)
    return np.stack([np.roll(reach, turn) for turn in turns]).astype(np.float32)


def _reach(corners: tuple[Point, ...], angle: float) -> float:
    """Where a ray from the middle leaves a polygon that it leaves once."""
    c, s = math.cos(angle), math.sin(angle)
    for (px, py), (qx, qy) in zip(corners, corners[1:] + corners[:1], strict=True):
        before, after = c * py - s * px, c * qy - s * qx  # signed distances of the side's ends from the ray
        if before <= 0 <= after and before < after:
            share = before / (before - after)
            along = c * (px + share * (qx - px)) + s * (py + share * (qy - py))
            if along > 0:
                return along
    raise ValueError("the polygon does not surround its middle")


@lru_cache
def _area(shape: str) -> float:
    """Of the shape with radius 1."""
    if shape not in POLYGONS:
        return math.pi * (1 - HOLE**2 if shape == "ring" else 1)
    corners = POLYGONS[shape]
    pairs = zip(corners, corners[1:] + corners[:1], strict=True)
    return abs(sum(px * qy - qx * py for (px, py), (qx, qy) in pairs)) / 2
