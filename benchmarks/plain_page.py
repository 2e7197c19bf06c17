"""A page of the libraries that the explorer is made with, for :mod:`benchmarks.explorer` to compare.

It has as many widgets and pieces of text as the explorer shows at first, and one empty figure.
"""

import panel as pn
import panel_material_ui as pmui
from bokeh.plotting import figure

pn.extension()
widgets = [pmui.Checkbox(label="Quadratic interpolation")]
widgets += [pmui.Select(label=f"Choice {number}", options=list("abc")) for number in range(30)]
texts = [pn.pane.HTML(f"<b>{number}</b>") for number in range(30)]
plot = figure(width=400, height=400)
plot.scatter([0, 1], [0, 1])
pmui.Page(title="Plain page", sidebar=[*widgets, *texts], main=[pn.pane.Bokeh(plot)]).servable()
