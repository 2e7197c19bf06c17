"""The state in the address."""

import pytest
from panel.io.location import Location

from explorer.address import connect, from_query, to_query
from explorer.library import Library
from explorer.session import Session
from explorer.words import STATE


def restored(query: str, library: Library) -> Session:
    session = Session(library, **from_query(query))
    session.start()
    return session


def test_what_is_written_is_read_back(library: Library):
    session = restored("", library)
    session.param.update(
        hour="2021-03-16T05:00", models=["lapse_rate"], region="all", mode="difference", reference="coarse",
        theme="dark", view="scores", daytime="night", palette="viridis",
    )  # fmt: skip
    session.limits = [-2.5, 2.5]
    again = restored(to_query(session), library)
    for name in STATE:
        assert getattr(again, name) == getattr(session, name), name


def test_a_fresh_view_names_store_hour_and_downscalers_only(library: Library):
    session = restored("", library)
    assert to_query(session) == "?store=full&hour=2021-03-16T12:00&models=quadratic,lapse_rate"


def test_no_downscaler_is_not_the_default(library: Library):
    session = restored("", library)
    session.models = []
    assert restored(to_query(session), library).running == ()


@pytest.mark.parametrize("name", ["2022", "007", "true", "1e5", "a&b=c", "[x]", "Größe ü"])
def test_names_stay_what_they_are(name: str, library: Library):
    assert from_query(to_query(Session(library, store=name)))["store"] == name


@pytest.mark.parametrize("query", ["?limits=a,b", "?limits=", "?colour=red", "?&&&=", "?models", "nonsense"])
def test_nonsense_is_left_out(query: str, library: Library):
    session = restored(query, library)
    assert session.limits is None
    assert session.snapshot is not None


def test_address_follows_the_session_and_the_session_the_address(library: Library):
    session, location = restored("", library), Location()
    connect(session, location)
    session.step(1)
    assert "hour=2021-03-16T13:00" in location.search
    session.mode = "difference"
    first = location.search
    session.mode = "fields"
    location.search = first  # the browser's way back
    assert session.mode == "difference"
    location.search = "?store=full&mode=sideways"
    assert session.mode == "fields"
