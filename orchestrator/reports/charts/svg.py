"""A matplotlib figure as SVG inside a page: with the page's colours and fonts, classes, and hover texts."""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.reports.charts.palette import THEME, hexadecimal

SVG: Final = "{http://www.w3.org/2000/svg}"
_XLINK: Final = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_FONT = re.compile(r"(?P<weight>bold|\d00)?\s*(?P<size>[\d.]+)px")
_VARIABLES: Final = {shade.light: f"var(--{name})" for name, shade in reversed([*THEME.items()])}
FONT_SIZE: Final = 13
SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stillhouse",  # the same page again, to the byte
    "text.parse_math": False,  # a name of the user's with two dollars is no formula
    "path.simplify": False,
    "font.size": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "text.color": hexadecimal("ink"),
    "axes.labelcolor": hexadecimal("ink"),
    "axes.edgecolor": hexadecimal("soft"),
    "xtick.color": hexadecimal("soft"),
    "ytick.color": hexadecimal("soft"),
    "xtick.labelcolor": hexadecimal("ink"),
    "ytick.labelcolor": hexadecimal("ink"),
    "grid.color": hexadecimal("line"),
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}

Tips = Mapping[str, Sequence[str]]
"""Hover texts by the `gid` of an artist: one for all of it, or one for each of its points or lines."""
NO_TIPS: Final[Tips] = {}
Painter = Callable[[Figure], Tips]


@dataclass(frozen=True)
class Drawing:
    """One SVG element, and the classes that its parts have."""

    markup: str
    styles: Mapping[str, str]
    """Declarations by class, for the page's one style sheet: a strict policy allows no style elsewhere."""


def drawing(name: str, label: str, size: tuple[float, float], paint: Painter) -> Drawing:
    """What `paint` draws on a figure of this size in pixels.

    `name` is unique on its page: all ids begin with it. `label` is what a reader hears who sees no picture.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)
        tips = paint(figure)
        buffer = io.StringIO()
        with warnings.catch_warnings():  # the reader's browser has the glyphs that matplotlib's font lacks
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(buffer, format="svg", dpi=72, metadata={"Date": None})
    text = _NO_XML.sub(" ", buffer.getvalue())
    root = ElementTree.fromstring(text)  # noqa: S314 (matplotlib wrote it just now)
    styles: dict[str, str] = {}
    _tidy(root, styles)
    _add_tips(root, tips)
    _name_ids(root, name)
    for element in root.iter():  # in a page SVG's elements have no prefix
        element.tag = element.tag.removeprefix(SVG)
    text = ElementTree.tostring(root, encoding="unicode")
    inner = text[text.index(">") + 1 : text.rindex("</")]
    head = f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {size[0]:g} {size[1]:g}">'
    return Drawing(f"{head}{inner}</svg>", styles)


def axes_of(figure: Figure, *, left: float, right: float = 12, top: float = 10, bottom: float = 44) -> Axes:
    """The one pair of axes of a figure, with margins in pixels, so that long labels have a known room."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )


def plain_label(text: str, longest: int = 40) -> str:
    """A name of the user's on one line, cut where it is long."""
    shown = " ".join(text.split())
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _tidy(element: ElementTree.Element, styles: dict[str, str]) -> None:
    """Leave out what the page says once, round coordinates, and make classes of styles, in all parts."""
    for child in list(element):
        if child.tag == f"{SVG}metadata" or child.find(f"{SVG}style") is not None:
            element.remove(child)
            continue
        _tidy(child, styles)
    element.tail = None
    if element.tag != f"{SVG}text":
        element.text = None
    attributes = element.attrib
    if _XLINK in attributes:
        attributes["href"] = attributes.pop(_XLINK)
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    for name in {"d", "x", "y", "transform"} & attributes.keys():
        attributes[name] = _shorter(attributes[name])
    if "style" in attributes:
        declarations = _declarations(attributes.pop("style"))
        if declarations:
            known = f"k{hashlib.blake2s(declarations.encode(), digest_size=4).hexdigest()}"
            styles[known] = declarations
            attributes["class"] = known


def _shorter(text: str) -> str:
    rounded = _NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), text)
    return re.sub(r"\s*([MLCQZzHV])\s*", r"\1", " ".join(rounded.split()))


def _declarations(style: str) -> str:
    """CSS of one of matplotlib's styles, with the page's variables for colours and without its fonts."""
    kept = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font" and (font := _FONT.search(value)):  # so matplotlib 3.9 writes it
            kept += [f"font-weight:{font['weight']}"] if font["weight"] else []
            kept.append(f"font-size:{font['size']}px")
        elif name and name != "font-family":
            kept.append(f"{name}:{_VARIABLES.get(value, value)}")
    return ";".join(kept)


def _add_tips(root: ElementTree.Element, tips: Tips) -> None:
    groups = {group.get("id", ""): group for group in root.iter(f"{SVG}g")}
    for gid, texts in tips.items():
        group = groups[gid]
        parts = [
            part for part in group.iter() if part.tag in (f"{SVG}use", f"{SVG}path") and not part.get("id")
        ]
        targets = [group] if len(texts) == 1 else parts
        if len(targets) != len(texts):
            raise ValueError(f"{gid} has {len(targets)} parts and {len(texts)} hover texts")
        for target, text in zip(targets, texts, strict=True):
            title = ElementTree.Element(f"{SVG}title")
            title.text = _NO_XML.sub(" ", text)
            target.insert(0, title)


def _name_ids(root: ElementTree.Element, name: str) -> None:
    """Ids that something refers to begin with the drawing's name; all others go."""
    references = [
        (element, attribute, found[1])
        for element in root.iter()
        for attribute in ("href", "clip-path")
        if (found := re.search(r"#([\w-]+)", element.get(attribute, "")))
    ]
    used = {known for _, _, known in references}
    short = {known: f"{name}-{number}" for number, known in enumerate(sorted(used))}
    for element, attribute, known in references:
        element.set(attribute, element.attrib[attribute].replace(known, short[known]))
    for element in root.iter():
        known = element.attrib.pop("id", None)
        if known in short:
            element.set("id", short[known])
