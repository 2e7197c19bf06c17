"""The report as one HTML page: figures inside it, no scripts, nothing from anywhere else.

All text is escaped, as labels and provenance come from checkpoint headers that anybody may have written; a
content security policy keeps the page from loading or running anything even so.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from core.report.contents import (
    best_first,
    clear_winner,
    confidence,
    difference,
    estimates,
    hours_text,
    is_synthetic,
    model_attrs,
    models_of,
    score_of,
    scores_of,
    target_name,
    targets_of,
)
from core.report.findings import findings
from core.report.tables import MAIN_SCORES, cost, explanation, score_columns
from core.text import MISSING, decimals_for, fixed, number, plain, with_units

CSS = """
:root { color-scheme: light dark; --ink: #16191c; --quiet: #5a636b; --line: #dfe3e6; --ground: #fff;
  --card: #f6f8f9; --accent: #17577c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaed; --quiet: #9fabb4; --line: #333d45;
  --ground: #12181d; --card: #1a2229; --accent: #7cc4ea; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 64px; }
h1 { font-size: 1.8rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 44px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 28px 0 8px; }
p { margin: 8px 0; max-width: 76ch; overflow-wrap: anywhere; }
.quiet, figcaption, caption { color: var(--quiet); }
.banner { background: var(--card); border-left: 4px solid #e69f00; padding: 8px 14px; margin: 16px 0; }
nav { font-size: 0.92rem; } nav a { margin-right: 14px; white-space: nowrap; }
a { color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 12px 0;
  font-size: 0.95rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 0.9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; margin: 8px 0; }
caption { text-align: left; font-size: 0.88rem; padding-bottom: 6px; caption-side: top; }
th, td { padding: 6px 12px 6px 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line);  white-space: nowrap; }
thead th { font-weight: 600; border-bottom: 2px solid var(--line); vertical-align: bottom; }
.main { font-size: 0.85rem; } .main thead th { white-space: normal; min-width: 5.6em; }
.scroll tr > th:first-child { position: sticky; left: 0; background: var(--ground); }
th:first-child, td.text, th.text { text-align: left; }
tbody th { font-weight: 500; }
td.wide { white-space: normal; min-width: 16em; max-width: 34em; overflow-wrap: anywhere; }
td small { display: block; color: var(--quiet); }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 8px; }
ul { padding-left: 1.2em; max-width: 80ch; } li { margin: 6px 0; overflow-wrap: anywhere; }
figure { margin: 26px 0 34px; }
figure .sheet { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 8px;
  overflow-x: auto; }
figure img { display: block; width: auto; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { font-size: 0.92rem; margin-top: 8px; max-width: 90ch; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
details { border-bottom: 1px solid var(--line); padding: 6px 0; }
summary { cursor: pointer; font-weight: 500; padding: 4px 0; }
@media (max-width: 640px) { main { padding: 18px 14px 48px; } h1 { font-size: 1.45rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; }
  figure img { max-width: none; width: 680px; } }
@media print { nav { display: none; } figure, table { break-inside: avoid; } figure img { width: 100%; } }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Drawn:
    """A figure of the page: the PNG file, or the reason why there is none."""

    target: str
    title: str
    caption: str = ""
    png: bytes = b""
    absent: str = ""


def page(evaluation: xr.Dataset, drawn: Sequence[Drawn]) -> str:
    """The whole page; ``drawn`` are the figures of all targets in their order."""
    title = plain(evaluation.attrs.get("title") or "Evaluation of downscalers", 200)
    targets = targets_of(evaluation)
    several = len(targets) > 1
    body = [f"<h1>{_text(title)}</h1>", f'<p class="quiet">{_text(_subtitle(evaluation))}</p>']
    if is_synthetic(evaluation):
        body.append(
            '<p class="banner">The data is synthetic: simulated weather, neither observed nor analysed. '
            "Scores "
            "on it say how the models compare here, not how well they do on real weather.</p>"
        )
    links = [("compared", "What was compared"), ("scores", "Scores"), ("findings", "In words")]
    links += [("figures", "Figures"), ("tables", "Tables")]
    body.append("<nav>" + " ".join(f'<a href="#{key}">{name}</a>' for key, name in links) + "</nav>")
    body += ['<h2 id="compared">What was compared</h2>', _basis(evaluation), _models(evaluation)]
    body.append('<h2 id="scores">Scores</h2>')
    for target in targets:
        body.append(_heading(target, several) + main_table(evaluation, target))
    body.append(f'<p class="quiet">{_text(explanation(evaluation))}</p>')
    body.append('<h2 id="findings">In words</h2>')
    for target in targets:
        sentences = findings(evaluation, target)
        items = "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences)
        body.append(
            _heading(target, several)
            + (
                f"<ul>{items}</ul>"
                if items
                else "<p>There is nothing to say: too few models have scores.</p>"
            )
        )
    body.append('<h2 id="figures">Figures</h2>')
    body += _figures(drawn, several)
    body.append('<h2 id="tables">Tables of every score</h2>')
    body.append(
        "<p>Each table holds the mean over hours with its interval, and the paired differences, row minus "
        "column; "
        "bold where the interval excludes zero. The same numbers are in the folder <code>tables</code>.</p>"
    )
    for target in targets:
        body.append(_heading(target, several))
        body += [score_table(evaluation, name, target) for name in scores_of(evaluation)]
    body.append(_cost(evaluation))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def main_table(evaluation: xr.Dataset, target: str, scores: Sequence[str] = MAIN_SCORES) -> str:
    """The main table of a target as HTML, with the same numbers as the Markdown one."""
    columns = score_columns(evaluation, target, scores)
    if not columns:
        return "<p>No score has a value.</p>"
    infos = {name: score_of(evaluation, name, target) for name in columns}
    winners = {name: clear_winner(evaluation, infos[name], target) for name in columns}
    head = "".join(f'<th scope="col">{_text(with_units(s.title, s.units))}</th>' for s in infos.values())
    rows = []
    for model in models_of(evaluation):
        if not any(model.key in column for column in columns.values()):
            continue
        cells = []
        for name, column in columns.items():
            value, interval = column.get(model.key, (MISSING, ""))
            shown = f"<b>{_text(value)}</b>" if winners[name] == model.key else _text(value)
            cells.append(f"<td>{shown}{f'<small>{_text(interval)}</small>' if interval else ''}</td>")
        rows.append(
            f'<tr><th scope="row">{_dot(model.colour)}{_text(model.label)}</th><td>{model.members}</td>'
            f"{''.join(cells)}</tr>"
        )
    return (
        '<div class="scroll"><table class="main"><thead><tr><th scope="col">Model</th><th '
        f'scope="col">Members</th>{head}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def score_table(evaluation: xr.Dataset, name: str, target: str) -> str:
    """One score, folded: values with intervals, and paired differences; empty where it has no value."""
    found = estimates(evaluation, name, target)
    if not found:
        return ""
    score = score_of(evaluation, name, target)
    models = {model.key: model for model in models_of(evaluation) if model.key in found}
    gaps = {
        (one, other): difference(evaluation, name, target, one, other)
        for one in models
        for other in models
        if one != other
    }
    known = [gap for gap in gaps.values() if math.isfinite(gap.value)]
    decimals = decimals_for((gap.value for gap in known), (gap.half_width for gap in known))
    column = score_columns(evaluation, target, [name])[name]
    others = list(models) if known else []
    head = "".join(f'<th scope="col">minus {_text(models[key].label)}</th>' for key in others)
    rows = []
    for key, model in models.items():
        value, interval = column[key]
        cells = [f"<td>{_text(value)}{f'<small>{_text(interval)}</small>' if interval else ''}</td>"]
        for other in others:
            gap = gaps.get((key, other))
            if gap is None or not math.isfinite(gap.value):
                cells.append(f"<td>{MISSING}</td>")
                continue
            shown = _text(fixed(gap.value, decimals, sign=True))
            low, high = (_text(fixed(bound, decimals, sign=True)) for bound in (gap.low, gap.high))
            cells.append(
                f"<td>{f'<b>{shown}</b>' if gap.excludes_zero else shown}<small>{low}, {high}</small></td>"
            )
        rows.append(f'<tr><th scope="row">{_dot(model.colour)}{_text(model.label)}</th>{"".join(cells)}</tr>')
    best = {
        "lower": "low is good",
        "higher": "high is good",
        "zero": "near 0 is good",
        "one": "near 1 is good",
    }
    about = score.long_name[:1].upper() + score.long_name[1:]
    if score.best in best:
        about += f"; {best[score.best]}"
    order = best_first(score, found)
    ranking = f" Best: {_text(models[order[0]].label)}." if len(order) > 1 else ""
    return (
        f"<details><summary>{_text(with_units(score.title, score.units))}</summary>"
        f'<div class="scroll"><table><caption>{_text(about)}.{ranking}</caption><thead><tr><th '
        'scope="col">Model</th>'
        f'<th scope="col">Mean</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></details>'
    )


def _subtitle(evaluation: xr.Dataset) -> str:
    models = len(models_of(evaluation))
    parts = [plain(evaluation.attrs.get("data_title", ""), 200), hours_text(evaluation)]
    parts.append(f"{models} model{'' if models == 1 else 's'}")
    return " · ".join(part for part in parts if part)


def _basis(evaluation: xr.Dataset) -> str:
    attrs = evaluation.attrs
    intervals = ""
    if "resamples" in attrs and "block_hours" in attrs:
        intervals = (
            f"{confidence(evaluation)}, bootstrap of {attrs['resamples']} "
            "resamples of blocks of "
            f"{attrs['block_hours']} hours"
        )
    rows = [
        ("Data", attrs.get("data_title")),
        ("Fingerprint of the data", attrs.get("data_fingerprint")),
        ("Hours", hours_text(evaluation)),
        ("Targets", ", ".join(target_name(target) for target in targets_of(evaluation))),
        ("Intervals", intervals),
        ("Sampling", attrs.get("sampling")),
        ("Command", attrs.get("command")),
        ("Machine", attrs.get("machine")),
        ("Version", attrs.get("version")),
        ("Created", attrs.get("created")),
    ]
    items = []
    for name, value in rows:
        if value in (None, ""):
            continue
        shown = _text(value, 2000)
        if name in ("Command", "Fingerprint of the data"):
            shown = f"<code>{shown}</code>"
        items.append(f"<dt>{name}</dt><dd>{shown}</dd>")
    return f"<dl>{''.join(items)}</dl>"


def _models(evaluation: xr.Dataset) -> str:
    known = model_attrs(evaluation)
    rows = []
    for model in models_of(evaluation):
        about = known.get(model.key, {})
        parameters = about.get("parameters")
        count = f"{parameters:,}".replace(",", " ") if isinstance(parameters, int) else MISSING
        origin = next((about[key] for key in about if key.startswith("provenance")), None)
        sha = plain(about.get("sha256") or "", 64)
        rows.append(
            f'<tr><th scope="row">{_dot(model.colour)}{_text(model.label)}</th>'
            f'<td class="text">{_text(model.kind)}</td><td>{model.members}</td><td>{_text(count)}</td>'
            f'<td class="text wide">{_text(about.get("file") or MISSING, 300)}'
            + (f"<small>SHA-256 <code>{_text(sha)}</code></small>" if sha else "")
            + f'</td><td class="text wide">{_text(_provenance(origin), 1000)}</td></tr>'
        )
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">Model</th><th scope="col" '
        'class="text">Kind</th>'
        '<th scope="col">Members</th><th scope="col">Parameters</th><th scope="col" class="text">File</th>'
        '<th scope="col" '
        f'class="text">Provenance</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _provenance(origin: object) -> str:
    if isinstance(origin, Mapping):
        return "; ".join(f"{key}: {value}" for key, value in origin.items())
    return str(origin) if origin else MISSING


def _figures(drawn: Sequence[Drawn], several: bool) -> Iterable[str]:
    count = 0
    for target in dict.fromkeys(figure.target for figure in drawn):
        yield _heading(target, several)
        reasons: dict[str, list[str]] = {}
        for figure in drawn:
            if figure.target != target:
                continue
            if figure.absent:
                reasons.setdefault(figure.absent, []).append(figure.title)
                continue
            count += 1
            data = base64.b64encode(figure.png).decode("ascii")
            yield (
                f'<figure id="figure-{count}"><div class="sheet"><img alt="{_text(figure.title)}" '
                f'src="data:image/png;base64,{data}"></div><figcaption><b>Figure {count}. '
                f"{_text(figure.title)}.</b> {_text(figure.caption, 4000)}</figcaption></figure>"
            )
        items = (f"<li>{_text('; '.join(titles))}: {_text(why)}</li>" for why, titles in reasons.items())
        if reasons:
            yield f'<div class="quiet"><p>Figures that are left out:</p><ul>{"".join(items)}</ul></div>'


def _cost(evaluation: xr.Dataset) -> str:
    found = cost(evaluation)
    if not found:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{_dot(model.colour)}{_text(model.label)}</th><td>{model.members}</td>'
        f"<td>{number(found[model.key][0])}</td><td>{number(found[model.key][1])}</td></tr>"
        for model in models_of(evaluation)
        if model.key in found
    )
    return (
        '<h3>Computing time and memory</h3><div class="scroll"><table><caption>Mean time of one hour of '
        "data with all members, and the largest memory of the process while it evaluated the model, scoring "
        "included, on the machine named above and beside whatever else it did.</caption>"
        '<thead><tr><th scope="col">Model</th>'
        '<th scope="col">Members</th><th scope="col">Time [s]</th><th scope="col">Memory '
        "[MiB]</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _heading(target: str, several: bool) -> str:
    return f"<h3>{_text(target_name(target)[:1].upper() + target_name(target)[1:])}</h3>" if several else ""


def _dot(colour: str) -> str:
    return f'<span class="dot" style="background:{colour}"></span>'


def _text(value: object, longest: int = 500) -> str:
    return html.escape(plain(value, longest))
