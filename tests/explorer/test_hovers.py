"""What a hover shows is its columns, whatever a model is called."""

import pytest

from explorer.style import template_text
from explorer.views import flux, maps, marks

LABEL = "A @{left}{truth} & $index"


def test_marks_of_a_template_are_written_as_entities():
    assert template_text(LABEL) == "A &#64;{left}{truth} &amp; &#36;index"


@pytest.mark.parametrize(
    "template",
    [
        maps._tooltip((("unet", LABEL),), "unet"),
        flux._tooltip([("unet", LABEL)], "unet"),
        marks._row(LABEL, "unet", 400),
    ],
)
def test_a_label_can_not_ask_for_a_column(template: str):
    assert template_text(LABEL) in template
    assert "truth" not in template.replace(template_text(LABEL), "")
    assert "$" not in template
