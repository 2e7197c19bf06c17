"""HTML whose buttons tell the page which of them was pressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import param
from panel.custom import JSComponent

from explorer.style import CSS


class Clickable(JSComponent):
    """A piece of HTML; ``pressed`` is called with the ``data-pick`` of a button in it that was pressed.

    The HTML is trusted: whatever comes from files goes through :func:`explorer.style.text`.
    """

    content = param.String(default="", doc="The HTML.")

    _esm = """
    export function render({ model, el }) {
      const root = document.createElement("div")
      root.className = "clickable"
      const show = () => { root.innerHTML = model.content }
      model.on("content", show)
      root.addEventListener("click", event => {
        const button = event.target.closest("[data-pick]")
        if (button != null) model.send_msg({pick: button.dataset.pick})
      })
      show()
      el.appendChild(root)
    }
    """

    def __init__(self, pressed: Callable[[str], None], **params: Any) -> None:
        params.setdefault("margin", 0)
        super().__init__(stylesheets=[CSS], **params)
        self._pressed = pressed

    def _handle_msg(self, data: Any) -> None:
        if isinstance(data, dict) and isinstance(data.get("pick"), str):
            self._pressed(data["pick"])
