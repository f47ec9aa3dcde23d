"""Sets of units that are found while a network is followed, and joined where they meet."""

from typing import final

from torch import nn

from tombola.prune.structure import Group, Slice


@final
class Space:
    """A set of units, or a part of one that was joined with another.

    Attributes:
        name: of the layer that made it.
        size: how many units.
        slices: where they live.
        stays: why they cannot be pruned; empty if they can.
        into: what it was joined with.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.slices: list[Slice] = []
        self.stays = ""
        self.into: Space | None = None

    def root(self) -> "Space":
        """Give the set it has become."""
        return self if self.into is None else self.into.root()


@final
class Spaces:
    """All sets of units of a network."""

    def __init__(self, module: nn.Module) -> None:
        every = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        self._first: dict[int, str] = {}
        for name, value in every:
            self._first.setdefault(id(value), name)
        self._all: list[Space] = []
        self._at: dict[tuple[str, int], tuple[Space, int]] = {}

    def new(self, name: str, size: int) -> Space:
        """Make a set of units."""
        self._all.append(Space(name, size))
        return self._all[-1]

    def add(self, space: Space, owner: nn.Module, attribute: str, axis: int, width: int) -> None:
        """Say that units live in an axis of a module's tensor; a tensor met before joins the two sets."""
        value = getattr(owner, attribute, None)
        if value is None:
            return
        name = self._first.get(id(value), "")
        if not name:
            self.stay(space, f"{attribute!r} of a {type(owner).__name__} is computed from other tensors")
            return
        if (name, axis) in self._at:
            other, other_width = self._at[name, axis]
            self.join(other, space, same=width == other_width, where=name)
            return
        self._at[name, axis] = (space, width)
        space.root().slices.append(Slice(name, axis, width))

    def join(self, one: Space, other: Space, *, same: bool = True, where: str) -> None:
        """Make one set of two that live and die together."""
        first, second = one.root(), other.root()
        if first is second:
            return
        if not same or first.size != second.size:
            for space in (first, second):
                self.stay(space, f"units of {first.name!r} and {second.name!r} of unlike widths meet at {where!r}")
            return
        if self._all.index(second) < self._all.index(first):
            first, second = second, first
        second.into = first
        first.slices += second.slices
        first.stays = first.stays or second.stays

    def stay(self, space: Space, reason: str) -> None:
        """Say that the units of a set cannot be pruned."""
        root = space.root()
        root.stays = root.stays or reason

    def found(self) -> tuple[Group, ...]:
        """Give the sets that can be pruned: more than one unit, and something that reads them."""
        return tuple(
            Group(space.name, space.size, tuple(space.slices))
            for space in self._all
            if space.into is None and not space.stays and space.size > 1 and any(one.axis == 1 for one in space.slices)
        )

    def reasons(self) -> tuple[str, ...]:
        """Say of each of the others why it stays."""
        return tuple(
            f"{space.name!r} stays: {space.stays}" for space in self._all if space.into is None and space.stays
        )
