"""Reads what was measured: medians, ratios, and whether each bar is met."""

from dataclasses import dataclass

from measure import Summary, ratio
from peers import LABELS, OURS, TOOLS, VERBS

MIB_BAR = 48
FLAT_BAR = 1.2
PER_FILE_BAR = 1.3


class Results:
    """The JSON of one or more runs of the bench, asked by set, tool and verb."""

    def __init__(self, data: dict):
        self.data = data

    def sets(self) -> list[str]:
        return list(self.data["sets"])

    def tools(self, name: str) -> list[str]:
        have = self.data["sets"].get(name, {}).get("tools", {})
        return [tool.name for tool in TOOLS if have.get(tool.name, {}).get("backup")]

    def cost(self, name: str, tool: str, verb: str, what: str) -> Summary | None:
        runs = self.data["sets"].get(name, {}).get("tools", {}).get(tool, {}).get(verb, [])
        return Summary.of([run[what] for run in runs])

    def wall(self, name: str, tool: str, verb: str) -> Summary | None:
        return self.cost(name, tool, verb, "wall")

    def stored(self, name: str, tool: str) -> Summary | None:
        return Summary.of(self.data["sets"].get(name, {}).get("tools", {}).get(tool, {}).get("stored", []))

    def extra(self, name: str, tool: str, what: str) -> Summary | None:
        runs = self.data["extras"].get(name, {}).get("tools", {}).get(tool, [])
        return Summary.of([run[what] for run in runs])

    def times(self, name: str, tool: str, verb: str, ours: str = "offsite") -> float | None:
        """How many times as long as ours the tool takes."""
        return ratio(self.wall(name, tool, verb), self.wall(name, ours, verb))

    def closest(self, name: str, verb: str, ours: str) -> tuple[float, str] | None:
        """The peer that is nearest to us, or ahead of us."""
        found = [(self.times(name, tool, verb, ours), tool) for tool in self.tools(name) if tool not in OURS]
        found = [(times, tool) for times, tool in found if times is not None]
        return min(found) if found else None

    def per_file(self, verb: str) -> tuple[float, float, float] | None:
        """Microseconds for each file at 1,000 and at 100,000 files, start-up
        taken off, and the ratio of the two. Start-up is what one file takes."""
        one, few, many = (self.wall(name, "offsite", verb) for name in ("N1", "N1000", "N"))
        if one is None or few is None or many is None or few.median <= one.median:
            return None
        at_few = (few.median - one.median) / 999 * 1e6
        at_many = (many.median - one.median) / 99_999 * 1e6
        return at_few, at_many, at_many / at_few


@dataclass(frozen=True)
class Bar:
    """One demand, what was measured, and whether it is met; None where it was
    not measured in this run."""

    about: str
    demand: str
    got: str
    met: bool | None


def faster(results: Results, name: str, verb: str, tool: str, at_least: float) -> Bar:
    times = results.times(name, tool, verb)
    about = f"{name} {verb} against {LABELS[tool]}"
    demand = f"≥ {at_least:g} ×"
    if times is None:
        return Bar(about, demand, "not measured", None)
    return Bar(about, demand, f"{times:.2f} ×", times >= at_least)


def ahead(results: Results, name: str, verb: str, ours: str) -> Bar:
    """Ahead of all peers that are there; those that are not are named at the
    top of the results."""
    about = f"{name} {verb}, {LABELS[ours]}, against every peer"
    found = results.closest(name, verb, ours)
    if found is None or results.wall(name, ours, verb) is None:
        return Bar(about, "> 1 ×", "not measured", None)
    times, tool = found
    return Bar(about, "> 1 ×", f"{times:.2f} × ({LABELS[tool]} is the closest)", times > 1)


def size_bar(results: Results) -> Bar:
    about, demand = "M stored size against the Python pipeline's", "≤ 1.01 ×"
    value = ratio(results.stored("M", "offsite"), results.stored("M", "python"))
    return Bar(about, demand, "not measured" if value is None else f"{value:.3f} ×", None if value is None else value <= 1.01)


def memory_bars(results: Results) -> list[Bar]:
    """By the largest of all runs, not by the median: a limit is a limit."""
    peaks = [
        (summary.high, f"{LABELS[tool]} {verb} {name}")
        for name in results.sets()
        for tool in OURS
        for verb in VERBS
        if (summary := results.cost(name, tool, verb, "peak"))
    ]
    demand = f"< {MIB_BAR} MiB"
    if not peaks:
        return [Bar("peak memory on every set", demand, "not measured", None)]
    highest, where = max(peaks)
    bars = [Bar("peak memory, the highest of all", demand, f"{highest:.1f} MiB ({where})", highest < MIB_BAR)]
    for verb in VERBS:
        value = ratio(results.cost("L", "offsite", verb, "peak"), results.cost("S", "offsite", verb, "peak"))
        got = "not measured" if value is None else f"{value:.2f} ×"
        bars.append(Bar(f"peak memory of {verb}, L to S", f"≤ {FLAT_BAR:g} ×", got, None if value is None else value <= FLAT_BAR))
    return bars


def per_file_bars(results: Results) -> list[Bar]:
    bars = []
    for verb in ("backup", "restore"):
        found = results.per_file(verb)
        got = "not measured" if found is None else f"{found[2]:.2f} × ({found[0]:.1f} to {found[1]:.1f} µs)"
        about = f"cost per file of {verb}, 1,000 to 100,000 files, start-up taken off"
        bars.append(Bar(about, f"≤ {PER_FILE_BAR:g} ×", got, None if found is None else found[2] <= PER_FILE_BAR))
    return bars


def unchanged_bars(results: Results) -> list[Bar]:
    bars = []
    for key in results.data["extras"]:
        if key.startswith("unchanged "):
            value = ratio(results.extra(key, "second run", "wall"), results.extra(key, "tar, sha256sum", "wall"))
            about = f"unchanged second run on {key.removeprefix('unchanged ')}, against reading the files"
            bars.append(Bar(about, "≤ 1 ×", f"{value:.2f} ×", value <= 1))
    return bars


def bars(results: Results) -> list[Bar]:
    """What offsite wants to hold beside its peers."""
    found = [
        faster(results, "S", "backup", "python", 3.5),
        faster(results, "S", "backup", "restic", 6),
        faster(results, "M", "backup", "python", 5),
        faster(results, "M", "backup", "pigz", 2.3),
        faster(results, "M", "backup", "restic", 1.5),
        faster(results, "M", "backup", "rustic", 1),
        size_bar(results),
        ahead(results, "M", "backup", "offsite-fast"),
        faster(results, "M", "restore", "python", 5),
        ahead(results, "M", "restore", "offsite"),
        faster(results, "L", "backup", "python", 5.5),
        faster(results, "L", "backup", "pigz", 2.3),
        ahead(results, "L", "backup", "offsite-fast"),
        ahead(results, "L", "restore", "offsite"),
    ]
    for verb in ("backup", "restore"):
        for tool, at_least in (("python", 6), ("restic", 2.5), ("borg", 4)):
            found.append(faster(results, "N", verb, tool, at_least))
    return found + per_file_bars(results) + memory_bars(results) + unchanged_bars(results)
