"""core.variables: the table is complete and in the published order."""

import json

from core.variables import PREDICTORS, STATIC_CHANNELS, STATICS, TARGETS, VARIABLES


def test_predictors_have_the_published_order():
    published = [VARIABLES[name].published_name for name in PREDICTORS]
    assert " ".join(published) == "2mT PMSL U10 V10 dp2mT SST SNDPT TP SSRadIn Q850 T850 U850 V850 W850"


def test_channels_match_the_published_network(fixtures):
    keys = json.loads((fixtures / "UNET_2mT.keys.json").read_text())
    shapes = [value["shape"] if isinstance(value, dict) else value[0] for value in keys.values()]
    first = next(shape for shape in shapes if len(shape) == 4)
    assert first[1] == len(PREDICTORS) + STATIC_CHANNELS


def test_every_variable_carries_cf_attributes():
    assert set(PREDICTORS) | set(TARGETS) | set(STATICS) == set(VARIABLES)
    for variable in VARIABLES.values():
        assert variable.attrs["units"]
        assert variable.attrs["long_name"]
        assert variable.valid_range[0] < variable.valid_range[1]
    assert {name for name, variable in VARIABLES.items() if variable.accumulated} == {"tp", "ssrd"}
