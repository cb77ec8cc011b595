"""Random generators of NumPy: what draws, the bits that it draws from, their seed.

Each may be shared: a generator draws from the same bits as another after a load, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..format import scalars
from ..kinds import generators
from .families import Refused
from .node import MISSING, Code, Loading, Node, NodeKind, Saving, require

_BITS = {x: getattr(np.random, x) for x in generators.NAMES}


class Generators(NodeKind):
    """["generator", bits]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        return ["generator", walk.code(value.bit_generator, number, "bit_generator")]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        now = MISSING
        if walk.fits(live, np.random.Generator):
            walk.claim(number, live)
            now = live.bit_generator
        else:
            walk.targets[number] = np.random.Generator(np.random.PCG64(0))
        node[1] = walk.visit(node[1], now, number, "bit_generator")

    def verify(self, walk: Loading, number: int, node: Node) -> None:
        require(walk, node[1], np.random.BitGenerator)

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        target, bits = walk.targets[number], walk.value(node[1])
        if target.bit_generator is not bits:
            np.random.Generator.__init__(target, bits)


class RandomStates(NodeKind):
    """["randomstate", bits, whether it keeps a number, that number]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        state = value.get_state(legacy=False)
        bits = walk.code(value._bit_generator, number, "_bit_generator")
        return ["randomstate", bits, state["has_gauss"], scalars.encode(state["gauss"])]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        now = MISSING
        if walk.fits(live, np.random.RandomState):
            walk.claim(number, live)
            now = live._bit_generator
        else:
            walk.targets[number] = np.random.RandomState(0)
        node[1] = walk.visit(node[1], now, number, "_bit_generator")
        node[2:] = int(node[2]), float(scalars.decode(node[3]))

    def verify(self, walk: Loading, number: int, node: Node) -> None:
        require(walk, node[1], np.random.BitGenerator)

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        target, bits = walk.targets[number], walk.value(node[1])
        if target._bit_generator is not bits:
            np.random.RandomState.__init__(target, bits)
        state = target.get_state(legacy=False)
        target.set_state({**state, "has_gauss": node[2], "gauss": node[3]})


class Bits(NodeKind):
    """Bit generators: ["bits", leaf, name of the type, seed]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        name = type(value).__name__
        if _BITS.get(name) is not type(value):
            raise Refused(f"a bit generator that is not NumPy's ({name})")
        words = walk.leaf(number, generators.words_of(value))
        seed = value.seed_seq
        if type(seed) is not np.random.SeedSequence:  # One that cannot spawn.
            seed = None
        return ["bits", words, name, walk.code(seed, number, "seed_seq")]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        cls, now = _BITS[node[2]], MISSING
        if walk.fits(live, cls):
            walk.reserve(live)
            now = live.seed_seq
        else:
            live = MISSING
        like = cls(0) if live is MISSING else live
        node[1] = generators.state_of_words(walk.leaf(node[1]), like.state)
        node[3] = walk.visit(node[3], now, number, "seed_seq")
        walk.pend(number, (cls, live))

    def needs(self, node: Node) -> list[Code]:
        return [node[3]]

    def build(self, walk: Loading, number: int, node: Node, context: Any) -> Any:
        cls, live = context
        seed = walk.value(node[3])
        require(walk, node[3], np.random.SeedSequence, type(None))
        if live is MISSING or not (_CAN_SET_SEED or live.seed_seq is seed):
            return cls(0 if seed is None else seed)
        return live

    def fill(self, walk: Loading, number: int, node: Node) -> None:
        bits, seed = walk.targets[number], walk.value(node[3])
        generators.set_bits(bits, node[1], bits.seed_seq if seed is None else seed)


# NumPy 1 cannot set the seed of an existing one.
_CAN_SET_SEED = np.lib.NumpyVersion(np.__version__) >= "2.0.0"


class Seeds(NodeKind):
    """Seeds, which count what was spawned: ["seed", entropy, key, size, count]."""

    def save(self, walk: Saving, number: int, value: Any) -> Node:
        state = value.state
        return ["seed", *(scalars.encode(_plain(state[name])) for name in _SEED)]

    def pair(self, walk: Loading, number: int, node: Node, live: Any) -> None:
        state = dict(zip(_SEED, map(scalars.decode, node[1:]), strict=True))
        if walk.fits(live, np.random.SeedSequence) and live.state == state:
            walk.claim(number, live)
        else:
            walk.targets[number] = generators.seed_sequence(state)


_SEED = ("entropy", "spawn_key", "pool_size", "n_children_spawned")


def _plain(value: Any) -> Any:
    return tuple(map(int, value)) if isinstance(value, (list, tuple)) else value
