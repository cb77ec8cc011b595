"""pygame: surfaces and shapes are state; windows, fonts and clocks are not."""

import os

import numpy as np
import pytest

from elementsckpt import Environment

from support.snapshots import saved

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
pygame = pytest.importorskip("pygame")
pytestmark = pytest.mark.environments


class Scene:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def surface(*arguments):
    made = pygame.Surface(*arguments)
    made.fill((10, 200, 30))
    made.set_at((2, 1), (1, 2, 3, 77))
    made.set_colorkey((1, 2, 3))
    made.set_clip((1, 1, 3, 2))
    return made


FORMS = {
    "plain": ((7, 5),),
    "alpha": ((7, 5), pygame.SRCALPHA),
    "palette": ((7, 5), 0, 8),
    "24 bits": ((7, 5), 0, 24),
    "16 bits": ((7, 5), 0, 16),
}


def look(made):
    return (
        pygame.image.tobytes(made, "RGBA"),
        *(made.get_flags(), made.get_masks(), made.get_bitsize(), made.get_alpha()),
        *(made.get_colorkey(), made.get_clip()),
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("there", ["the same form", "another size", "none"])
def test_a_surface_comes_back(form, there):
    live = {
        "the same form": pygame.Surface(*FORMS[form]),
        "another size": pygame.Surface((3, 4)),
        "none": None,
    }[there]
    scene = Scene(image=surface(*FORMS[form]))
    other = Scene(image=live)
    Environment(other).load(saved(scene))
    assert look(other.image) == look(scene.image)
    assert (other.image is live) == (there == "the same form")


def test_a_surface_that_two_hold_is_one_again():
    image = surface((4, 4))
    other = Scene(a=None, b=None)
    Environment(other).load(saved(Scene(a=image, b=[image])))
    assert other.a is other.b[0]


VALUES = [
    pygame.Rect(1, 2, 3, 4),
    pygame.Vector2(1.5, 2),
    pygame.Vector3(1, 2, 0.1),
    pygame.Color(1, 2, 3, 4),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda x: type(x).__name__)
def test_a_shape_comes_back_in_place_or_anew(value):
    state = saved(Scene(value=value))
    there = type(value)(*[0] * len(value))
    for live in (there, None):
        other = Scene(value=live)
        Environment(other).load(state)
        assert other.value == value
        assert type(other.value) is type(value)
    assert there == value


def test_clocks_and_fonts_stay_the_live_ones():
    pygame.font.init()
    scene, other = (
        Scene(clock=pygame.time.Clock(), font=pygame.font.Font(None, 12), n=n)
        for n in (1, 2)
    )
    kept = other.clock, other.font
    Environment(other).load(saved(scene))
    assert (other.clock, other.font, other.n) == (*kept, 1)


def test_pixels_that_are_a_view_of_a_surface_are_painted():
    image = surface((6, 4))
    other = pygame.Surface((6, 4))
    Environment(Scene(image=other)).load(saved(Scene(image=image)))
    pixels = pygame.surfarray.array2d(other)
    assert np.array_equal(pixels, pygame.surfarray.array2d(image))
