"""Parts of the report as HTML; every word of the user's is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from orchestrator.reports.charts.chart import Chart


class Part(NamedTuple):
    """A section of the page; empty where there is nothing to show."""

    markup: str
    chart: Chart | None = None


def text(value: str) -> str:
    """A text that cannot become markup."""
    return html.escape(value, quote=True)


def section(head: str, *body: str) -> str:
    """A section of the page; nothing where it holds nothing."""
    inner = "".join(body)
    return f"<section><h2>{text(head)}</h2>{inner}</section>" if inner else ""


def note(*sentences: str) -> str:
    """A paragraph in small print; nothing where there is nothing to say."""
    told = " ".join(filter(None, sentences))
    return f'<p class="note">{text(told)}</p>' if told else ""


def fact_list(facts: Mapping[str, str]) -> str:
    """Names and their values."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>" if rows else ""


def tiles(found: Iterable[tuple[str, str, str]]) -> str:
    """Name, figure and remark of each tile."""
    shown = "".join(
        f'<div class="tile"><span>{text(name)}</span><strong>{text(value)}</strong>'
        f"<small>{text(remark)}</small></div>"
        for name, value, remark in found
    )
    return f'<div class="tiles">{shown}</div>'


def table(
    label: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    kind: str = "",
    marked: Sequence[bool] = (),
) -> str:
    """A table that is moved sideways, by keyboard too, where the screen is narrow; marked rows stand out."""
    head = "".join(f'<th scope="col">{text(column)}</th>' for column in columns)
    marks = marked or [False] * len(rows)
    body = "".join(
        f"<tr{' class=champion' if mark else ''}>"
        + "".join(f"<td>{text(cell)}</td>" for cell in row)
        + "</tr>"
        for row, mark in zip(rows, marks, strict=True)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">'
        f"<table{f' class={kind}' if kind else ''}><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )
