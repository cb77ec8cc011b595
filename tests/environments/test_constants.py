"""What modules and classes hold is theirs: a load takes it, and changes it never."""

import copy

import numpy as np

from elementsckpt.environments import snapshots

from support.worlds import World


class Tile:
    """An object that stands for a kind of place."""

    EMPTY = object()

    def __init__(self, name):
        self.name = name


DIRECTIONS = [np.array([0, 1]), np.array([1, 0])]
TILES = {"wall": Tile("wall"), "floor": Tile("floor")}
FLOOR = Tile("floor")


class Walker(World):
    """An environment that holds constants."""

    cells = [0, 0, 0]  # noqa: RUF012

    def __init__(self, **attributes):
        super().__init__(direction=DIRECTIONS[0], here=FLOOR, cells=Walker.cells)
        self.__dict__.update(attributes)


def reload(old, new):
    snapshots.check(new, copy.deepcopy(snapshots.capture(old))).load()


def test_a_load_takes_the_constant_that_was_held():
    env = Walker()
    reload(Walker(direction=DIRECTIONS[1], here=TILES["wall"], empty=Tile.EMPTY), env)
    assert env.direction is DIRECTIONS[1]
    assert env.here is TILES["wall"]
    assert env.empty is Tile.EMPTY
    assert [x.tolist() for x in DIRECTIONS] == [[0, 1], [1, 0]]
    assert (FLOOR.name, TILES["wall"].name) == ("floor", "wall")


def test_what_is_not_a_constant_takes_the_place_of_none():
    env = Walker()
    old = Walker(cells=[1, 2, 3], direction=np.array([5, 5]), here=Tile("own"))
    reload(old, env)
    assert (env.cells, Walker.cells) == ([1, 2, 3], [0, 0, 0])
    assert env.direction.tolist() == [5, 5]
    assert DIRECTIONS[0].tolist() == [0, 1]
    assert (env.here.name, FLOOR.name) == ("own", "floor")


def test_a_constant_takes_the_place_of_what_is_none():
    env = Walker(cells=[1, 2, 3], direction=np.array([5, 5]), here=Tile("own"))
    held = env.cells, env.direction, env.here
    reload(Walker(), env)
    assert env.cells is Walker.cells
    assert env.direction is DIRECTIONS[0]
    assert env.here is FLOOR
    assert (held[0], held[1].tolist(), held[2].name) == ([1, 2, 3], [5, 5], "own")


def test_generators_are_a_part_of_the_state_wherever_they_are_held():
    class Drawn(World):
        RNG = np.random.default_rng(0)

    old, new = Drawn(rng=Drawn.RNG), Drawn(rng=np.random.default_rng(1))
    data = copy.deepcopy(snapshots.capture(old))
    expected = Drawn.RNG.random(3).tolist()
    snapshots.check(new, data).load()
    assert new.rng.random(3).tolist() == expected
