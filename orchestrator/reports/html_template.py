"""The report's skeleton and style."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from string import Template
from typing import Final

from orchestrator.reports.charts.palette import THEME

_DARK: Final = "@media screen and (prefers-color-scheme: dark)"
_STYLE: Final = """
* { box-sizing: border-box; }
html { color-scheme: light dark; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 16px 0 4px; }
.kind { color: var(--soft); margin: 0 0 2px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: 20px 24px; margin-top: 20px; }
.scroll { overflow-x: auto; }
.tiles { display: grid; gap: 12px; margin-top: 20px;
  grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  display: flex; flex-direction: column; gap: 2px; overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: 13px; } .tile strong { font-size: 20px; }
.tile small { color: var(--soft); font-size: 13px; }
.verdict, .state { padding: 10px 16px; margin: 20px 0 0; border-left: 4px solid var(--accent);
  background: var(--paper); overflow-wrap: anywhere; }
.state { border-left-color: var(--vermilion); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--soft); }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
.students { font-size: 14px; } .students td { white-space: nowrap; }
.students th { vertical-align: bottom; overflow-wrap: normal; }
.students td:last-child { white-space: normal; min-width: 300px; font-size: 13px; }
tr.champion td { background: var(--marked); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.note { color: var(--soft); margin: 12px 0 0; } code { font-size: 13px; overflow-wrap: anywhere; }
a { color: var(--accent); }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 16px; }
.panels > div { max-width: 480px; }
.chart { margin-top: 14px; }
.narrow { display: none; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; margin: 0 0 10px; padding: 0;
  font-size: 13px; }
.legend li { display: flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
.swatch { flex: none; width: 34px; }
.pictures { display: grid; gap: 14px; list-style: none; margin: 14px 0 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr)); }
.pictures li { display: flex; gap: 12px; align-items: flex-start; font-size: 13px; overflow-wrap: anywhere; }
.pictures img { flex: none; width: 96px; height: auto; border: 1px solid var(--line); }
.pictures span { display: block; } .pictures .coarse { image-rendering: pixelated; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--accent); width: fit-content; }
details table { font-size: 13px; width: auto; }
details td, details th { white-space: nowrap; padding-right: 22px; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
@media (max-width: 700px) {
  main { padding: 18px 10px 40px; } section { padding: 14px 12px; }
  .wide { display: none; } .narrow { display: block; }
  .tiles { grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; }
}
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""

# The policy lets the page load nothing from anywhere and run nothing: what it shows is in it, and of styles
# only the sheet with this digest counts, so that no text in it can change how it looks.
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-$digest';
 img-src data:; base-uri 'none'; form-action 'none'">
<title>$title: report</title>
<style>$style</style>
</head>
<body>
<main>
<p class="kind">Stillhouse report</p>
<h1>$title</h1>
$body
</main>
</body>
</html>
"""


def page(title: str, body: str, styles: Mapping[str, str]) -> str:
    """A whole page of HTML: title and body are markup already, `styles` are declarations by class."""
    sheet = _variables() + _STYLE + "".join(f".{name}{{{css}}}" for name, css in sorted(styles.items()))
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    return Template(_PAGE).substitute(title=title, body=body, style=sheet, digest=digest)


def _variables() -> str:
    light = "".join(f"--{name}:{shade.light};" for name, shade in THEME.items())
    dark = "".join(f"--{name}:{shade.dark};" for name, shade in THEME.items())
    return f":root{{{light}}}{_DARK}{{:root{{{dark}}}}}"
