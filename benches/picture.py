"""Draws docs/benchmarks.svg: how long and how much memory, beside offsite.

Plain text put together here: no package draws it. It has its own background
and both colour schemes, because a page shows it as an image, which knows the
reader's preference but not the page's colours.
"""

import math
from xml.sax.saxutils import escape

from peers import LABELS, OURS
from results import Results

WIDTH, MARGIN, GAP = 1000, 24, 40
ROW, BAR, TITLE = 22, 14, 46
NAME, VALUE = 128, 112

STYLE = """
.back { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
.title { font-weight: 600; font-size: 15px } .sub, .value { fill: #59636e; font-size: 12px }
.peer { fill: #b6bec8 } .ours { fill: #0a6ed1 } .fast { fill: #6cb0f2 }
.strong { font-weight: 600 }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117 } text { fill: #e6edf3 } .sub, .value { fill: #9198a1 }
.peer { fill: #4d5763 } .ours { fill: #4ea1f7 } .fast { fill: #2b639f }
}
""".strip()


class Row:
    """One bar: a tool, its length as a share of the panel, and what is written
    behind it."""

    def __init__(self, tool: str, share: float, text: str):
        self.tool, self.share, self.text = tool, share, text

    def draw(self, x: float, y: float, width: float) -> list[str]:
        kind = {"offsite": "ours", "offsite-fast": "fast"}.get(self.tool, "peer")
        strong = ' class="strong"' if self.tool in OURS else ""
        length = max(2.0, self.share * width)
        middle = y + ROW / 2 + 4
        return [
            f'<text x="{x + NAME - 8:.0f}" y="{middle:.1f}" text-anchor="end"{strong}>{escape(LABELS[self.tool])}</text>',
            f'<rect class="{kind}" x="{x + NAME:.0f}" y="{y + (ROW - BAR) / 2:.1f}" width="{length:.1f}" height="{BAR}" rx="2"/>',
            f'<text class="value" x="{x + NAME + length + 6:.1f}" y="{middle:.1f}">{escape(self.text)}</text>',
        ]


def seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def mebibytes(value: float) -> str:
    return f"{value:,.0f} MiB"


def time_rows(results: Results, name: str, verb: str) -> list[Row]:
    """Wall time, and how many times ours it is."""
    walls = {tool: wall for tool in results.tools(name) if (wall := results.wall(name, tool, verb))}
    if "offsite" not in walls:
        return []
    own, most = walls["offsite"].median, max(wall.median for wall in walls.values())
    return [
        Row(tool, wall.median / most, f"{seconds(wall.median)} ({wall.median / own:.2f} ×)")
        for tool, wall in sorted(walls.items(), key=lambda item: item[1].median)
    ]


def memory_rows(results: Results, name: str) -> list[Row]:
    """Peak memory of a backup. From some MiB to some GiB only a logarithmic
    axis shows both; it begins at 1 MiB."""
    peaks = {tool: peak for tool in results.tools(name) if (peak := results.cost(name, tool, "backup", "peak"))}
    if not peaks:
        return []
    most = math.log10(max(10.0, *(peak.median for peak in peaks.values())))
    return [
        Row(tool, max(0.0, math.log10(max(1.0, peak.median))) / most, mebibytes(peak.median))
        for tool, peak in sorted(peaks.items(), key=lambda item: item[1].median)
    ]


def panel(title: str, sub: str, rows: list[Row], x: float, y: float, width: float) -> list[str]:
    """A title and its bars."""
    lines = [
        f'<text class="title" x="{x:.0f}" y="{y + 14:.0f}">{escape(title)}</text>',
        f'<text class="sub" x="{x:.0f}" y="{y + 32:.0f}">{escape(sub)}</text>',
    ]
    length = width - NAME - VALUE
    for at, row in enumerate(rows):
        lines += row.draw(x, y + TITLE + at * ROW, length)
    return lines


def draw(results: Results) -> str:
    """The whole picture: one column for each of M and L that was measured, or
    for any one set when neither was. Empty when there is nothing to show."""
    columns = [name for name in ("M", "L") if results.wall(name, "offsite", "backup")]
    columns = columns or [name for name in results.sets() if results.wall(name, "offsite", "backup")][:1]
    if not columns:
        return ""
    width = (WIDTH - 2 * MARGIN - GAP) / 2 if len(columns) == 2 else WIDTH - 2 * MARGIN
    height_of = TITLE + ROW * max(len(results.tools(name)) for name in columns) + 22
    lines = []
    for column, name in enumerate(columns):
        facts = results.data["sets"][name]
        x = MARGIN + column * (width + GAP)
        about = f"{facts['files']:,} files, {facts['bytes'] / 1e6:,.0f} MB"
        for at, verb in enumerate(("backup", "restore")):
            rows = time_rows(results, name, verb)
            title = f"{name}: {verb}, {about}"
            lines += panel(title, "wall time, and how many times offsite's; shorter is faster", rows, x, MARGIN + at * height_of, width)
        rows = memory_rows(results, name)
        lines += panel(f"{name}: memory of a backup", "peak; the bars are logarithmic", rows, x, MARGIN + 2 * height_of, width)
    height = 2 * MARGIN + 3 * height_of - 10
    names = " and ".join(columns)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img">',
            f"<title>Backup and restore time and peak memory of offsite and its peers on {names}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{WIDTH}" height="{height:.0f}"/>',
            *lines,
            f'<text class="sub" x="{MARGIN}" y="{height - 14:.0f}">Medians; {escape(results.data["machine"])}</text>',
            "</svg>",
            "",
        ]
    )
