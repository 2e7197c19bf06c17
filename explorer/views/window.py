"""What the window of the browser asks for: steps back and forward, and a page that lost its server."""

from __future__ import annotations

from bokeh.document import Document
from bokeh.events import ConnectionLost, DocumentReady
from bokeh.models import CustomJS

# Panel writes the address and does not read it again. An address that it writes while the window goes back would
# end what lies ahead, so the one that is there already is not written again. A page that was opened without a
# state is no step of its own: back leads to where the visitor came from.
STEPS = """
const push = history.pushState.bind(history), replace = history.replaceState.bind(history)
history.pushState = (state, title, url) => {
  if (new URL(url, location.href).href !== location.href) (location.search ? push : replace)(state, title, url)
}
window.addEventListener('popstate', () => {
  for (const model of Bokeh.documents[0]._all_models.values())
    if (model.type == 'panel.models.location.Location') model.search = location.search
})
"""
# The address holds what is chosen, so loading the page anew restores it. A page that loses its connection
# right after that (a server that answers, and refuses the websocket) would go round forever; it asks instead.
LOST = """
if (document.getElementById('connection-lost') != null) return
const KEY = 'tramontana-came-back'
const again = Date.now() - Number(sessionStorage.getItem(KEY) ?? 0) < 20000
const bar = document.createElement('div')
bar.id = 'connection-lost'
bar.setAttribute('role', 'alert')
bar.style.cssText = 'position:fixed;z-index:10000;left:50%;bottom:24px;transform:translateX(-50%);' +
  'display:flex;gap:16px;align-items:center;max-width:90vw;padding:12px 20px;border-radius:6px;' +
  'background:#323232;color:#fff;font:14px/20px Roboto,sans-serif;box-shadow:0 3px 12px rgba(0,0,0,.4)'
const words = document.createElement('span')
const button = document.createElement('button')
button.textContent = 'Reload now'
button.style.cssText = 'background:none;border:1px solid #9fc5e8;border-radius:4px;color:#9fc5e8;' +
  'font:inherit;padding:3px 10px;cursor:pointer'
const back = () => {
  sessionStorage.setItem(KEY, String(Date.now()))
  location.reload()
}
button.addEventListener('click', back)
bar.append(words, button)
document.body.append(bar)
if (again) {
  words.textContent = 'The connection to the server was lost again. What you see no longer follows your choices.'
  return
}
words.textContent =
  'The connection to the server was lost. The page comes back, as it is, when the server answers.'
const look = async () => {
  try {
    const answer = await fetch(location.href, {cache: 'no-store'})
    if (answer.ok) return back()
  } catch { /* not there yet */ }
  setTimeout(look, 2000)
}
setTimeout(look, 1000)
"""


def come_back(document: Document) -> None:
    """Make the page of ``document`` say when its connection is lost, and load itself anew when there is one."""
    document.js_on_event(ConnectionLost, CustomJS(code=LOST))


def follow_steps(document: Document) -> None:
    """Make the page of ``document`` show what the address says after a step back or forward."""
    document.js_on_event(DocumentReady, CustomJS(code=STEPS))
