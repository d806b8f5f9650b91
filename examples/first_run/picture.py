"""Draw what demo.py counted as docs/effect.svg: one bar for each process, all runs on one scale.

    python3 examples/first_run/picture.py [COUNTS.json [PICTURE.svg]]

Rule of the file: every number in the picture comes from the counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from typing import Any

HERE = Path(__file__).resolve().parent
COUNTS = HERE / "results" / "counts.json"
PICTURE = HERE.parents[1] / "docs" / "effect.svg"

WIDTH, LEFT, RIGHT, TOP, ROW, BAR, GAP = 760, 16, 16, 64, 20, 14, 36  # pixels
NUMBER = 60  # room for the figure at the end of a bar

# No background: the page's own shows. Mid greys and hues are readable on white and on black; where the viewer tells
# which it is, they get more contrast.
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #768091 }
.title { font-size: 16px; font-weight: 600 }
.name { font-weight: 600 }
.plain { fill: #d97706 }
.collfs { fill: #3b82f6 }
@media (prefers-color-scheme: light) { text { fill: #374151 } }
@media (prefers-color-scheme: dark) { text { fill: #d1d5db } }
"""


def draw(counts: dict[str, Any]) -> str:
    """The picture as SVG text."""
    runs = counts["runs"]
    rows = max(len(r["per_process"]) for r in runs)
    longest = max(max(r["per_process"]) for r in runs)
    panel = (WIDTH - LEFT - RIGHT - GAP * (len(runs) - 1)) / len(runs)
    height = TOP + 24 + rows * ROW + 40
    title = f"{counts['ranks']} processes import numpy, scipy, pandas: path operations on the original files"
    said = "; ".join(f"{r['name']}: {sum(r['per_process']):,} in all" for r in runs)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t d">',
        f'<title id="t">{escape(title)}</title><desc id="d">{escape(said)}</desc>',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>',
    ]
    for i, one in enumerate(runs):
        x = LEFT + i * (panel + GAP)
        out.append(f'<text class="name" x="{x:.1f}" y="{TOP}">{escape(one["name"])}</text>')
        kind = "plain" if one["name"] == "plain" else "collfs"
        for j, n in enumerate(one["per_process"]):
            y = TOP + 12 + j * ROW
            bar = max(1.0, (panel - NUMBER) * n / longest)
            out.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{bar:.1f}" height="{BAR}" rx="2"/>')
            out.append(f'<text x="{x + bar + 6:.1f}" y="{y + BAR - 3}">{n:,}</text>')
        total = f"all: {sum(one['per_process']):,}"
        out.append(f'<text class="name" x="{x:.1f}" y="{TOP + 12 + rows * ROW + 20}">{total}</text>')
    return "\n".join([*out, "</svg>", ""])


def main(counts: str = str(COUNTS), picture: str = str(PICTURE)) -> int:
    """Read, draw, write."""
    try:
        text = Path(counts).read_text()
    except FileNotFoundError:
        print(f"{counts} does not exist: run examples/first_run/demo.py first, with strace installed", file=sys.stderr)
        return 1
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    Path(picture).write_text(draw(json.loads(text)))
    print(f"wrote {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
