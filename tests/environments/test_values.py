"""Values without identity come back exactly, without pickle."""

import datetime
import decimal
import fractions
import math
import pathlib
import re
import uuid

import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st

from elementsckpt.environments import families, snapshots, values

from support.twins import reload
from support.worlds import World

ZONE = datetime.timezone(datetime.timedelta(hours=2), "here")
VALUES = [
    *(None, True, 0, 1 << 80, -1, 1.5, -0.0, math.inf, math.nan, 2 + 3j),
    *("", "ä\ud800", b"\x00\xff", ..., NotImplemented, range(3, 9, 2)),
    *(slice(1, None, -2), (), (1, "a", None), np.float32(1.1), np.int8(-3)),
    *(np.bool_(True), np.datetime64("2020-01-01"), np.dtype("f4"), np.dtype(">i2,f8")),
    *(datetime.date(2020, 1, 2), datetime.timedelta(3, 4, 5), ZONE),
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6, ZONE, fold=1),
    datetime.datetime(2020, 1, 2),
    *(datetime.timezone.utc, decimal.Decimal("1.10"), fractions.Fraction(1, 3)),
    *(pathlib.Path("/a/b"), re.compile("a+", re.I), re.compile(b"x")),
    uuid.UUID(int=5),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("live", [None, 0, "text", ...])
def test_a_value_comes_back_whatever_is_there(value, live):
    found = reload(World(value=value, list=[value]), World(value=live)).value
    assert type(found) is type(value)
    assert repr(found) == repr(value)
    assert found == value or math.isnan(value)


@hypothesis.given(
    st.one_of(
        st.floats(),
        st.integers(),
        st.text(),
        st.binary(),
        st.complex_numbers(),
        st.tuples(st.text(), st.floats()),
    )
)
def test_any_number_and_any_text_comes_back(value):
    encoder = values.encoder(type(value))
    code = encoder(value) if encoder else values.encode_tuple(value)
    found = values.decode(msgspec.json.decode(msgspec.json.encode(code)))
    assert repr(found) == repr(value)


class Number(int):
    """A number of a class of its own."""


@pytest.mark.parametrize(
    "value", [Number(3), np.void(b"ab"), datetime.datetime.now(ZONE).time()]
)
def test_others_are_refused_by_name(value):
    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(value=value))
    (said,) = caught.value.inside
    assert re.fullmatch(r"unwrapped\.value is an? [\w.]+, whose state .*", said)


def test_a_zone_that_is_a_program_s_own_is_refused():
    class Own(datetime.tzinfo):
        pass

    with pytest.raises(families.Refused) as caught:
        snapshots.capture(World(value=datetime.datetime(2020, 1, 1, tzinfo=Own())))
    assert caught.value.inside == (
        "the environment is a support.worlds.World with a value that only pickle holds",
    )
