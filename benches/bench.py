"""make bench: offsite beside its peers on the same files, in one run.

    make bench                       everything; two hours or so, most of it L
    make bench ARGS="S M --runs 3"   some sets, fewer runs
    make bench ARGS="T --runs 1"     whether it works, in a minute
    make bench ARGS="--report"       the tables of what was measured before

Prints its tables at the end, stores all figures in target/bench/results.json,
and writes docs/benchmarks.md and its picture when every set was measured, or
when --write says so. The figures of sets that were measured earlier are kept,
with the date and the build they belong to.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import sys
from pathlib import Path

import extras
import picture
import report
from datasets import SETS
from measure import Failed
from peers import TOOLS
from results import Results
from session import Places, Session

USUAL_SETS = ["S", "M", "N", "L"]
USUAL_RUNS = 5
# runs that take milliseconds are repeated more often: their noise is larger
LEAST_RUNS = {"N1": 25, "N1000": 9}
UNCHANGED_SETS = ("S", "M", "N")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n")[0])
    names = [tool.name for tool in TOOLS]
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; without any: {', '.join(USUAL_SETS)}")
    parser.add_argument("--runs", type=int, default=USUAL_RUNS, help=f"how often each tool runs (default: {USUAL_RUNS})")
    parser.add_argument("--tools", default="", metavar="A,B", help=f"only these of {', '.join(names)}")
    parser.add_argument("--write", action="store_true", help="write docs/ although not every set was measured")
    parser.add_argument("--no-extras", action="store_true", help="only the sets: no GitHub, start-up, unchanged run")
    parser.add_argument("--report", action="store_true", help="measure nothing; print, and with --write write, what is stored")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("--runs has to be 1 or more")
    for wrong in [name for name in args.sets if name not in SETS]:
        parser.error(f"there is no data set {wrong}: the sets are {', '.join(SETS)}")
    args.tools = [name for name in args.tools.split(",") if name]
    for wrong in [name for name in args.tools if name not in names]:
        parser.error(f"there is no tool {wrong}: the tools are {', '.join(names)}")
    return args


def machine() -> str:
    """What the figures depend on, in a line."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB of memory, Linux {platform.release().split('-')[0]}"


def earlier(path: Path) -> dict:
    """The figures of sets measured before; none when they cannot be read."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {"sets": {}, "extras": {}}


def measure(session: Session, args: argparse.Namespace, data: dict) -> None:
    """Fills `data` with the sets asked for, and with what belongs to them."""
    sets = args.sets or USUAL_SETS
    if "N" in sets:
        sets = [name for name in sets if name not in ("N1", "N1000")] + ["N1", "N1000"]
    build = hashlib.sha256(session.offsite.read_bytes()).hexdigest()[:10]
    for name in sets:
        runs = max(args.runs, LEAST_RUNS.get(name, 1))
        print(f"{name}: {runs} runs", flush=True)
        if os.getloadavg()[0] > 0.7:
            print(f"warning: load average {os.getloadavg()[0]:.1f}: other programs are running", file=sys.stderr)
        result = session.measure(name, runs, only_ours=name == "N1")
        when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        data["sets"][name] = result | {"offsite": build, "when": when}
    if args.no_extras or "offsite" not in [tool.name for tool in session.tools]:
        return
    jobs = [("start-up", lambda: extras.start_up(session))]
    if "S" in sets:
        jobs.append(("github", lambda: extras.github(session, args.runs)))
    for name in [name for name in sets if name in UNCHANGED_SETS]:
        jobs.append((f"unchanged {name}", lambda name=name: extras.unchanged(session, name, args.runs)))
    for name, job in jobs:
        print(name, flush=True)
        try:
            data["extras"][name] = job()
        except Failed as error:
            session.failures.append(f"{name}: {error}")
            print(f"error: {name}: {error}", file=sys.stderr, flush=True)


def publish(places: Places, results: Results, write: bool) -> None:
    """Prints the tables, stores them, and puts them into docs/ if wanted."""
    text = report.markdown(results)
    (places.kept / "results.md").write_text(text)
    drawn = picture.draw(results)
    if drawn:
        (places.kept / "benchmarks.svg").write_text(drawn)
    print("\n" + text)
    if not write:
        print("docs/ was left as it was: not every set was measured, and there was no --write")
        return
    page = places.root / "docs" / "benchmarks.md"
    report.insert(page, "results", text)
    report.insert(page, "commands", report.commands_part())
    if drawn:
        shutil.copyfile(places.kept / "benchmarks.svg", places.root / "docs" / "benchmarks.svg")


def main() -> int:
    args = arguments()
    places = Places.usual()
    stored = places.kept / "results.json"
    data = earlier(stored)
    if args.report:
        if not data["sets"]:
            sys.exit(f"error: {stored} has no figures\nhint: measure first: make bench ARGS=\"S --runs 3\"")
        publish(places, Results(data), args.write)
        return 0
    session = Session(places, args.tools)
    try:
        print(f"floor: /bin/true is measured with {session.launcher.floor():.1f} MiB", flush=True)
        data |= {"machine": machine(), "versions": session.versions, "absent": session.absent}
        measure(session, args, data)
    except Failed as error:
        sys.exit(f"error: {error}\nhint: nothing of this run was stored")
    finally:
        session.clean()
    order = {name: at for at, name in enumerate(SETS)}
    data["sets"] = dict(sorted(data["sets"].items(), key=lambda item: order[item[0]]))
    data["failures"] = session.failures
    stored.write_text(json.dumps(data, indent=1))
    everything = not args.sets and not args.tools and not args.no_extras
    publish(places, Results(data), args.write or everything)
    return 1 if session.failures else 0


if __name__ == "__main__":
    sys.exit(main())
