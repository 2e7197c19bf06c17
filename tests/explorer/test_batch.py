"""Changes of a page that are sent together, with and without Bokeh's lock."""

from types import SimpleNamespace

import pytest
from bokeh.document import Document
from bokeh.document.events import ModelChangedEvent
from bokeh.models import Div
from panel.io.state import set_curdoc

from explorer.batch import adding, together


def document(monkeypatch: pytest.MonkeyPatch, *, locked: bool) -> tuple[Document, Div, list[str]]:
    """A document of a session that has its lock or not, one model of it, and what was sent."""
    made, model, sent = Document(), Div(), []
    made.add_root(model)
    session = SimpleNamespace(_pending_writes=[] if locked else None)
    monkeypatch.setattr(Document, "session_context", property(lambda _: SimpleNamespace(session=session)))
    made.on_change(
        lambda event: sent.append(str(event.new)) if isinstance(event, ModelChangedEvent) else None
    )
    return made, model, sent


def test_changes_are_sent_at_the_end_and_once(monkeypatch: pytest.MonkeyPatch):
    made, model, sent = document(monkeypatch, locked=True)
    with together(made):
        model.text = "one"
        with together(made):
            model.text = "two"
        assert sent == []
    assert sent == ["two"]
    assert made.session_callbacks == []


def test_without_the_lock_changes_wait_for_the_next_turn(monkeypatch: pytest.MonkeyPatch):
    made, model, sent = document(monkeypatch, locked=False)
    with together(made):
        (callback,) = made.session_callbacks  # added before the hold, which would hold it back
        model.text = "one"
    assert sent == []
    callback.callback()
    assert sent == ["one"]
    model.text = "two"
    assert sent == ["one", "two"]


def test_models_are_known_after_what_is_added_even_after_a_failure():
    made, first, second = Document(), Div(), Div()

    def fail() -> None:
        with adding():
            made.add_root(first)
            assert first.id not in made.models
            raise KeyError

    with set_curdoc(made):
        with pytest.raises(KeyError):
            fail()
        assert first.id in made.models
        with adding(), adding():
            made.add_root(second)
            assert second.id not in made.models
        assert second.id in made.models


def test_a_failure_inside_sends_what_was_changed(monkeypatch: pytest.MonkeyPatch):
    made, model, sent = document(monkeypatch, locked=True)

    def fail() -> None:
        with together(made):
            model.text = "one"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sent == ["one"]
