"""The description of a sampler's run."""

import pytest
from pydantic import ValidationError

from core.downscale import DownscaleError, Sampling


def test_the_spacing_follows_the_sampler() -> None:
    assert Sampling().sampler == "dpmpp_2m"
    assert [Sampling(sampler=name).spacing for name in ("ddim", "dpmpp_2m", "heun")] == [
        "published",
        "logsnr",
        "karras",
    ]
    assert Sampling(sampler="ddim", timesteps="trailing").spacing == "trailing"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"eta": 0.3}, "dpmpp_2m has no random steps"),
        ({"sampler": "ddim", "eta": 1.5}, "^eta: "),
        ({"steps": 0}, "^steps: "),
        ({"seed": -1}, "^seed: "),
        ({"seed": 2**64}, "^seed: "),
        ({"sampler": "euler"}, "^sampler: "),
    ],
)
def test_what_can_not_be_is_a_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(DownscaleError, match=sentence):
        Sampling.checked(**values)
    with pytest.raises(ValidationError):
        Sampling(**values)  # type: ignore[arg-type]
