"""The look of a report, and how things are put into a page that needs no other file."""

import base64
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfusion.pictures import encoded

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a8f4a; --bad: #c8402f; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { image-rendering: pixelated; border: 1px solid var(--line); background: #fff; max-width: 100% }
.grid { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 9rem }
figure.wide { width: 19rem } figure img { width: 9rem; height: 9rem } figcaption { font-size: .85rem; line-height: 1.3 }
.right::before { content: "✓ "; color: var(--good) } .wrong::before { content: "✗ "; color: var(--bad) }
svg { max-width: 100%; height: auto } pre { overflow-x: auto; background: #8881; padding: .8rem }
pre.text { white-space: pre-wrap } .warning { border-left: 4px solid var(--bad); padding-left: .8rem }
.sheets img { width: 100%; border: 0 } .sheets td:first-child { white-space: nowrap; padding-right: 1rem }
"""


def page(title: str, parts: list[str]) -> str:
    """Put parts into one page."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def section(title: str, body: str) -> str:
    """Give a part its heading."""
    return f"<h2>{escape(title)}</h2>{body}"


def table(rows: list[tuple[str, str]]) -> str:
    """Lay out names and what belongs to them, which is HTML already."""
    return "<table>" + "".join(f"<tr><td>{escape(name)}</td><td>{value}</td></tr>" for name, value in rows) + "</table>"


def image(picture: Image.Image | NDArray[np.uint8], text: str) -> str:
    """Put a picture into the page, with the text that stands for it."""
    drawn = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    data = base64.b64encode(encoded(drawn.convert("RGB"))).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'
