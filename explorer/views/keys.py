"""The keyboard, and what else only the browser knows: that an hour was drawn, that nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import param
from panel.custom import JSComponent

from explorer.player import Player, day_away
from explorer.session import Session
from explorer.style import CSS

ESM = """
const WRITES = 'input:not([type=checkbox]):not([type=button]), textarea, select, [contenteditable=""], '
  + '[contenteditable=true], [role=textbox], [role=combobox], [role=listbox], [role=menu], [role=slider], '
  + '[role=spinbutton], [role=dialog]'
const PRESSES = 'button, a, summary, input, [role=button], [role=checkbox]'
const PAUSE = 120  // ms between repeats of a key that is held

export function render({model, el}) {
  const help = document.createElement('dialog')
  help.className = 'keys'
  el.append(help)
  const close = () => help.close()
  help.addEventListener('click', close)

  const say = () => {
    const rows = [
      [['←', '→'], 'Previous or next hour'],
      [['Shift ←', 'Shift →'], 'The day before or after, at the same time of day'],
      [['Space'], 'Play or pause the hours'],
      ...model.views.map((name, i) => [[String(i + 1)], name]).slice(0, 9),
      [['Wheel', 'Drag'], 'On a map: closer, farther, another place'],
      [['Double click'], 'On a map: the whole region again'],
      [['?'], 'Show or hide this list'],
    ]
    const title = document.createElement('h2')
    title.textContent = 'Keys and mouse'
    const list = document.createElement('dl')
    for (const [keys, words] of rows) {
      const dt = document.createElement('dt'), dd = document.createElement('dd')
      for (const key of keys) {
        const kbd = document.createElement('kbd')
        kbd.textContent = key
        dt.append(kbd, ' ')
      }
      dd.textContent = words
      list.append(dt, dd)
    }
    const note = document.createElement('p')
    note.textContent = 'Keys work unless a text field or a list has the focus.'
    help.replaceChildren(title, list, note)
    help.showModal()
  }

  let sent = 0, last = 0
  const send = (message) => model.send_msg({...message, count: ++sent})

  const press = (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return
    const path = event.composedPath().filter(node => node instanceof Element)
    if (event.key == '?' && help.open) { event.preventDefault(); close(); return }
    if (help.open || path.some(node => node !== help && node.matches(WRITES))) return
    // A key that is held waits until the page has gone to the hour before.
    if (event.repeat && (model.handled < sent || event.timeStamp - last < PAUSE)) {
      if (event.key.startsWith('Arrow')) event.preventDefault()
      return
    }
    const arrow = {ArrowLeft: -1, ArrowRight: 1}[event.key]
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0
    if (arrow != null)
      send(event.shiftKey ? {days: arrow} : {hours: arrow})
    else if (event.repeat)
      return
    else if (event.key == '?')
      say()
    else if (event.key == ' ' && !path.some(node => node.matches(PRESSES)))
      send({play: true})
    else if (digit > 0 && digit <= model.views.length)
      send({view: digit - 1})
    else
      return
    last = event.timeStamp
    event.preventDefault()
  }
  // Not counted: a page that is being closed wants no answer.
  const hidden = () => { if (document.hidden) model.send_msg({hidden: true}) }
  const drawn = () => {
    const frame = model.frame
    // After the next picture: the maps are drawn in one of these callbacks themselves.
    requestAnimationFrame(() => requestAnimationFrame(() => model.send_msg({drawn: frame})))
  }
  document.addEventListener('keydown', press)
  document.addEventListener('visibilitychange', hidden)
  model.on('frame', drawn)
  model.on('remove', () => {
    document.removeEventListener('keydown', press)
    document.removeEventListener('visibilitychange', hidden)
  })
}
"""


class Keys(JSComponent):
    """Listens to the keys of one page and turns them into changes of its session.

    ``views`` gives the views that the keys 1 to 9 go to, name -> key.
    """

    frame = param.Integer(default=0, doc="Hours announced by the player; the browser answers when drawn.")
    handled = param.Integer(default=0, doc="Keys that were handled.")
    views = param.List(default=[], item_type=str, doc="Names of the views in the order of their keys.")

    _esm = ESM

    def __init__(
        self, session: Session, player: Player, views: Callable[[], dict[str, str]], **params: Any
    ) -> None:
        self._session = session
        self._player = player
        self._views = views
        super().__init__(
            views=list(views())[:9], width=0, height=0, margin=0, sizing_mode="fixed",
            styles={"position": "absolute"}, stylesheets=[CSS], **params,
        )  # fmt: skip
        player.param.watch(lambda event: setattr(self, "frame", event.new), "frame")

    def _handle_msg(self, data: Any) -> None:
        if not isinstance(data, dict):
            return
        try:
            self.act(data)
        finally:
            count = data.get("count")
            if isinstance(count, int):
                self.handled = count

    def act(self, message: dict[str, Any]) -> None:
        """Do what a message from the browser asks for; what makes no sense is ignored."""
        session, player = self._session, self._player
        hours, days, view = (_whole(message.get(name)) for name in ("hours", "days", "view"))
        frame = _whole(message.get("drawn"))
        if hours:
            session.step(hours)
        elif days and session.hours.size:
            session.go(day_away(session.hours, session.position(), days))
        elif view is not None:
            known: Sequence[str] = list(self._views().values())
            if 0 <= view < len(known):
                session.view = known[view]
        elif frame is not None:
            player.drawn(frame)
        elif message.get("play"):
            player.toggle()
        elif message.get("hidden"):
            player.stop()


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
