"""The report's skeleton and style."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { --ink: #1f2328; --soft: #59616c; --line: #dfe3e8; --paper: #ffffff; --back: #f4f5f7;
  --accent: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 0 0 12px; }
.kind { color: var(--soft); margin: 0 0 2px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: 20px 24px; margin-top: 20px; overflow-x: auto; }
.tiles { display: grid; gap: 12px; margin-top: 20px;
  grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  display: flex; flex-direction: column; gap: 2px; overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: 13px; } .tile strong { font-size: 20px; }
.tile small { color: var(--soft); }
.verdict { padding: 10px 16px; margin: 20px 0 0;
  border-left: 4px solid var(--accent); background: var(--paper); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--soft); }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
.students { font-size: 14px; } .students td { white-space: nowrap; }
.students th { vertical-align: bottom; overflow-wrap: normal; }
.students td:last-child { white-space: normal; min-width: 200px; font-size: 13px; }
tr.champion td { background: #eaf4fb; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.note { color: var(--soft); margin: 12px 0 0; } code { font-size: 13px; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(360px, 1fr)); gap: 20px; }
a { color: var(--accent); }
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""

# The policy lets the page load nothing from anywhere: what it shows is in it.
PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<title>$experiment: report</title>
<style>$style</style>
<script>$plotly</script>
</head>
<body>
<main>
<p class="kind">Stillhouse report</p>
<h1>$experiment</h1>
<div class="tiles">$tiles</div>
<p class="verdict">$verdict</p>
<section><h2>Students</h2>$students<p class="note">$comparison</p><p class="note">$curse</p>
<p class="note">$devices</p></section>
<section><h2>Accuracy and cost</h2>$cost
<p class="note">Points are means over seeds, bars one standard deviation; the dashed line joins the
students that no other beats in both. Where the search weighed costs, rings mark its trials that no other
beats in all that it weighed.</p></section>
<section><h2>Learning curves</h2>$curves
<p class="note">Thin lines are single seeds, thick lines their mean. The first quarter of the training may lie
below the picture; a double click shows it.</p></section>
<section><h2>What the search tried</h2><p>$counts</p>$search
<p class="note">One line a trial, the darker the better, the thickest the best; grey ones were stopped
early. A line that passes below an axis has no such value; a trial that was stopped has no accuracy
to compare.</p></section>
<section><h2>What the test split was used for</h2><p>$test_split</p></section>
<div class="pair">
$teacher
<section><h2>Where the time went</h2>$seconds</section>
</div>
<section><h2>Exported champion</h2>$exports</section>
<section><h2>Record</h2>$mlflow</section>
</main>
</body>
</html>
"""
