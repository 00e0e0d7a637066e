"""Writes what was measured as Markdown: the bars first, then every figure."""

from pathlib import Path

import extras
from measure import Summary, ratio
from peers import LABELS, OURS, TOOLS, VERBS
from results import Results, bars

MARKS = {True: "met", False: "**not met**", None: "–"}


def number(value: float) -> str:
    """Three digits that say something, whatever the size."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def cell(summary: Summary | None, scale: float = 1.0) -> str:
    """The median, and what it lay between."""
    if summary is None:
        return "–"
    low, high, median = (number(value * scale) for value in (summary.low, summary.high, summary.median))
    return median if low == high else f"{median} ({low}–{high})"


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table whose source is readable as well: it is printed as it is."""
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]

    def line(row: list[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |"

    return [line(header), "| " + " | ".join("-" * width for width in widths) + " |", *map(line, rows), ""]


def bars_part(results: Results) -> list[str]:
    rows = [[bar.about, bar.demand, bar.got, MARKS[bar.met]] for bar in bars(results)]
    return ["### Bars", "", *table(["what", "bar", "measured", ""], rows)]


def set_part(results: Results, name: str) -> list[str]:
    """One table for each verb: every tool, and how many times ours it takes."""
    facts = results.data["sets"][name]
    lines = [
        f"### {name}: {facts['files']:,} files, {facts['bytes'] / 1e6:,.1f} MB",
        "",
        f"{facts['runs']} runs, on {'tmpfs' if facts['place'] == 'memory' else 'disk'}; "
        f"load when it began {facts['load']:.1f}; offsite {facts['offsite']}; {facts['when']}.",
        "",
    ]
    for tool, note in facts["notes"].items():
        lines += [f"- {LABELS[tool]}: {note}"]
    lines += [""] if facts["notes"] else []
    for verb in VERBS:
        header = [f"{name} {verb}", "wall s", "× ours", "CPU s", "× ours", "peak MiB"]
        header += ["stored MB", "× ours"] if verb == "backup" else []
        rows = []
        for tool in results.tools(name):
            row = [LABELS[tool]]
            for what in ("wall", "cpu"):
                cost = results.cost(name, tool, verb, what)
                row += [cell(cost), times(ratio(cost, results.cost(name, "offsite", verb, what)))]
            row.append(cell(results.cost(name, tool, verb, "peak")))
            if verb == "backup":
                stored = results.stored(name, tool)
                row += [cell(stored, 1e-6), times(ratio(stored, results.stored(name, "offsite")))]
            rows.append(row)
        lines += table(header, rows)
    return lines


def memory_part(results: Results) -> list[str]:
    """The highest of all runs, for each set and verb."""
    sets = [name for name in results.sets() if name not in ("T", "N1")]
    rows = []
    for tool in OURS:
        for verb in VERBS:
            peaks = [results.cost(name, tool, verb, "peak") for name in sets]
            if any(peaks):
                flat = ratio(results.cost("L", tool, verb, "peak"), results.cost("S", tool, verb, "peak"))
                cells = ["–" if peak is None else f"{peak.high:.1f}" for peak in peaks]
                rows.append([f"{LABELS[tool]} {verb}", *cells, times(flat)])
    header = ["highest peak, MiB", *sets, "L to S (medians)"]
    return ["### Memory", "", *table(header, rows)] if rows else []


def extras_part(results: Results) -> list[str]:
    have, lines = results.data["extras"], []
    if "start-up" in have:
        asked = have["start-up"]["asked"]
        rows = [
            [f"`{asked[name]}`", f"{wall.low * 1e3:.1f}", f"{wall.median * 1e3:.1f}"]
            for name in have["start-up"]["tools"]
            if (wall := results.extra("start-up", name, "wall"))
        ]
        lines += ["### Start-up", "", *table([f"ms, {extras.STARTS} runs", "least", "median"], rows)]
    if "github" in have:
        rows = [
            [LABELS[name], *(cell(results.extra("github", name, what)) for what in ("wall", "cpu", "peak")),
             f"{have['github']['bodies'][name] / 1e6:.2f}"]
            for name in have["github"]["tools"]
        ]
        header = ["S to the GitHub stand-in", "wall s", "CPU s", "peak MiB", "body of the one PUT, MB"]
        lines += ["### The whole path", "", *table(header, rows)]
    rows = []
    for key in (key for key in have if key.startswith("unchanged ")):
        second, reading = (results.extra(key, name, "wall") for name in ("second run", "tar, sha256sum"))
        uploads = {1: "no", 2: "yes"}.get(have[key]["objects"], "?")
        rows.append([key.removeprefix("unchanged "), cell(second), cell(reading), times(ratio(second, reading)), uploads])
    if rows:
        header = ["set", "second run s", "tar, sha256sum s", "ratio", "stored a second object"]
        lines += ["### An unchanged second run", "", *table(header, rows)]
    rows = [
        [verb, *(f"{value:.1f}" for value in found[:2]), f"{found[2]:.2f}"]
        for verb in VERBS
        if (found := results.per_file(verb))
    ]
    if rows:
        header = ["µs for each file, start-up taken off", "1,000 files", "100,000 files", "ratio"]
        lines += ["### Cost per file", "", *table(header, rows)]
    return lines


def markdown(results: Results) -> str:
    """Everything, as one page's part."""
    data = results.data
    versions = ", ".join(text for text in data["versions"].values() if text)
    lines = [
        f"Measured on {data['machine']}. Wall and CPU time in seconds: median (least–most); "
        "× ours: more than 1 means that offsite took less.",
        "",
        f"Versions: {versions}.",
        "",
    ]
    absent = [f"{LABELS[name]} ({why})" for name, why in data["absent"].items()]
    lines += [f"**Absent:** {'; '.join(absent)}.", ""] if absent else []
    lines += [f"**Failed:** {failure}" for failure in data["failures"]] + ([""] if data["failures"] else [])
    builds = {facts["offsite"] for facts in data["sets"].values()}
    if len(builds) > 1:
        lines += ["The sets were measured with different builds of offsite, named below.", ""]
    lines += bars_part(results)
    for name in results.sets():
        lines += set_part(results, name) if name not in ("T", "N1") or len(results.sets()) == 1 else []
    return "\n".join(lines + memory_part(results) + extras_part(results)).rstrip() + "\n"


def commands_part() -> str:
    """The exact commands of every tool, from the code that runs them."""
    lines = []
    for tool in TOOLS:
        lines += [f"**{tool.label}**", "", "```text", *extras.rendered(tool), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def insert(page: Path, mark: str, text: str) -> None:
    """Replaces what is between the page's two marks of that name."""
    begin, end = f"<!-- {mark}: made by make bench -->", f"<!-- end of {mark} -->"
    old = page.read_text()
    if old.count(begin) != 1 or old.count(end) != 1:
        raise SystemExit(f"error: {page} lacks `{begin}` or `{end}`\nhint: put both lines back, once each")
    before, rest = old.split(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}")
