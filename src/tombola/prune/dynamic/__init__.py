"""Masks that change while a network trains: one method per file, each with its paper and equation."""

from tombola.prune.dynamic.base import Updates
from tombola.prune.dynamic.gradual import Gradual
from tombola.prune.dynamic.rigl import RigL, rigl
from tombola.prune.dynamic.set import SET

__all__ = ["SET", "Gradual", "RigL", "Updates", "rigl"]
