"""Numbers, units and escaping."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import text


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (0.81234, 3, "0.812"),
        (1.0, 3, "1.00"),
        (999.9, 3, "1000"),
        (12345.0, 3, "12345"),
        (1.17e7, 3, "1.17e7"),
        (-3.3e-5, 2, "−3.3e−5"),
        (0.0, 3, "0"),
        (math.nan, 3, "–"),
    ],
)
def test_numbers_have_significant_digits(value, digits, shown):
    assert text.number(value, digits) == shown


def test_signs():
    assert text.number(0.5, sign=True) == "+0.500"
    assert text.fixed(-0.001, 2, sign=True) == "0.00"
    assert text.fixed(1.25, 1, sign=True) == "+1.2"


@given(st.floats(-1e12, 1e12, allow_nan=False).filter(lambda value: abs(value) > 1e-12))
def test_numbers_can_be_read_back(value):
    shown = float(text.number(value).replace(text.MINUS, "-"))
    assert shown == pytest.approx(value, rel=0.005)


def test_decimals_show_two_digits_of_the_interval():
    assert text.decimals_for([0.8, 2.0], [0.013, 0.034]) == 3
    assert text.decimals_for([300.0], [12.0]) == 0
    assert text.decimals_for([0.8], [math.nan]) is None
    assert text.decimals_for([0.8, 3e6], [0.1, 0.1]) is None
    assert text.decimals_for([3e-7], [1e-8]) is None


def test_units():
    assert text.units_text("m s-1") == "m s⁻¹"
    assert text.units_text("K2") == "K²"
    assert text.units_text("(K)2") == "K²"
    assert text.units_text("1") == "" == text.units_text(None)
    assert text.with_units("RMSE", "K") == "RMSE [K]"


def test_lists_in_words():
    assert [text.joined(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


@given(st.text(max_size=200))
def test_plain_text_is_one_short_printable_line(value):
    line = text.plain(value, 40)
    assert len(line) <= 40
    assert line.isprintable()
    assert not any(letter in line for letter in "\u202e\u200b\x1b\n")


def test_markdown_holds_no_markup():
    assert text.for_markdown("a|b <img> *x* [y](z) `c`") == (r"a\|b &lt;img&gt; \*x\* \[y\](z) \`c\`")
    assert text.for_markdown("LDM_res") == "LDM_res"


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@sum"])
def test_csv_holds_no_formula(label):
    assert text.for_csv(label) == f"'{label}"


def test_figures_hold_no_mathematics():
    assert text.for_figure("$x_1$") == r"\$x_1\$"
    assert text.for_figure("_hidden") == " _hidden"


def test_file_names_stay_in_their_folder():
    assert text.for_file_name("../a b/é") == "___a_b__"
    assert text.for_file_name("") == "_"
