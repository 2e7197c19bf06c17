"""The synthetic evaluation, made once."""

import pytest

from tests.core.report.synthetic_evaluation import evaluation as make_evaluation


@pytest.fixture(scope="session")
def made():
    return make_evaluation()


@pytest.fixture
def evaluation(made):
    """A copy that a test may change."""
    return made.copy(deep=True)
