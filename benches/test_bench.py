"""Tests of the bench itself: python -m unittest discover benches

What is held here: the same seed gives the same tree, the sums are right, the
launcher does not count the harness, and what is written can be read.
"""

import os
import tempfile
import unittest
import zlib
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import content
import datasets
import measure
import picture
import report
from peers import TOOLS
from results import Results, bars


def figures(wall: float, peak: float = 10.0) -> dict:
    cost = [{"wall": wall * at, "cpu": wall, "peak": peak} for at in (0.9, 1.0, 1.2)]
    return {verb: cost for verb in ("backup", "verify", "restore")} | {"stored": [1000]}


def sample() -> Results:
    """Results as bench.py stores them: offsite takes 1 s, Python 6, restic 2."""
    walls = {"offsite": 1.0, "offsite-fast": 0.5, "python": 6.0, "restic": 2.0, "zstd": 0.75}
    facts = {"files": 5000, "bytes": 5 * 10**8, "place": "memory", "load": 0.0, "runs": 3, "notes": {}}
    facts |= {"offsite": "0123456789", "when": "2026-01-01 00:00 UTC"}
    sets = {name: facts | {"tools": {tool: figures(wall) for tool, wall in walls.items()}} for name in ("S", "M", "L")}
    head = {"machine": "2 cores <&>", "versions": {"restic": "restic 1"}, "absent": {"borg": "not installed"}}
    return Results({"sets": sets, "extras": {}, "failures": []} | head)


class DataSets(unittest.TestCase):
    def tree(self, seed: str, processes: int | None = None) -> str:
        with tempfile.TemporaryDirectory() as folder:
            datasets.make("T", Path(folder), seed, processes)
            return datasets.tree_hash(Path(folder))

    def test_the_same_seed_makes_the_same_tree(self):
        self.assertEqual(self.tree("one"), self.tree("one"))

    def test_another_seed_makes_another_tree(self):
        self.assertNotEqual(self.tree("one"), self.tree("two"))

    def test_the_number_of_processes_does_not_matter(self):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            datasets.make("N1000", Path(one), processes=1)
            datasets.make("N1000", Path(two), processes=3)
            self.assertEqual(datasets.tree_hash(Path(one)), datasets.tree_hash(Path(two)))

    def test_sets_have_the_sizes_that_the_page_promises(self):
        for name, files, size in (("S", 635, 10e6), ("M", 5_000, 500e6), ("L", 20_001, 4e9), ("N", 100_000, 110e6)):
            plan = datasets.plan(name)
            self.assertAlmostEqual(len(plan) / files, 1, delta=0.01, msg=name)
            self.assertAlmostEqual(sum(file.size for file in plan) / size, 1, delta=0.05, msg=name)
            self.assertEqual(len({file.path for file in plan}), len(plan), f"{name} has a path twice")

    def test_every_kind_of_content_has_exactly_its_size(self):
        for kind, make in content.KINDS.items():
            for size in (1, 777, 100_000):
                self.assertEqual(len(make(Random(kind), size)), size, kind)

    def test_text_compresses_as_text_does_and_media_do_not(self):
        for kind, make in content.KINDS.items():
            data = make(Random(kind), 400_000)
            ratio = len(data) / len(zlib.compress(data, 6))
            low, high = {"media": (0.9, 1.01), "secret": (0.9, 1.01), "env": (1.5, 4)}.get(kind, (3, 9))
            self.assertTrue(low < ratio < high, f"{kind} compresses by {ratio:.2f}")

    def test_the_hash_sees_content_mode_name_time_and_links(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "file"
            file.write_text("one")
            os.utime(file, (1, 1))
            seen = {datasets.tree_hash(Path(folder))}
            for change in (
                lambda: (file.write_text("two"), os.utime(file, (1, 1))),
                lambda: file.chmod(0o600),
                lambda: os.utime(file, (2, 2)),
                lambda: (Path(folder) / "link").symlink_to("file"),
                lambda: file.rename(file.with_name("other")),
            ):
                change()
                seen.add(datasets.tree_hash(Path(folder)))
            self.assertEqual(len(seen), 6)


class Measuring(unittest.TestCase):
    def test_a_summary_has_the_median_and_both_ends(self):
        self.assertEqual(measure.Summary.of([3.0, 1.0, 2.0, 9.0, 4.0]), measure.Summary(3.0, 1.0, 9.0, 5))
        self.assertIsNone(measure.Summary.of([]))

    def test_a_ratio_says_how_many_times_ours_the_other_takes(self):
        ours, theirs = measure.Summary.of([2.0]), measure.Summary.of([5.0])
        self.assertEqual(measure.ratio(theirs, ours), 2.5)
        self.assertIsNone(measure.ratio(None, ours))

    def test_the_launcher_counts_every_stage_but_not_itself_or_the_harness(self):
        ballast = bytearray(64 << 20)
        with tempfile.TemporaryDirectory() as folder:
            launcher = measure.Launcher(Path(folder))
            self.assertLess(launcher.floor(), measure.FLOOR_MIB)
            one = launcher.run([["/bin/true"]], dict(os.environ), Path("/"))
            three = launcher.run([["/bin/true"]] * 3, dict(os.environ), Path("/"))
            self.assertGreater(three.peak, 2.5 * one.peak)
            slept = launcher.run([["sleep", "0.1"]], dict(os.environ), Path("/"))
            self.assertAlmostEqual(slept.wall, 0.1, delta=0.09)
        self.assertEqual(len(ballast), 64 << 20)

    def test_a_stage_that_fails_fails_the_run_with_what_it_said(self):
        with tempfile.TemporaryDirectory() as folder:
            launcher = measure.Launcher(Path(folder))
            with self.assertRaisesRegex(measure.Failed, r"\[1, 0\].*/nowhere"):
                launcher.run([["cat", "/nowhere"], ["cat"]], dict(os.environ, LC_ALL="C"), Path("/"))


class Reports(unittest.TestCase):
    def test_bars_say_met_not_met_and_not_measured(self):
        found = {bar.about: bar.met for bar in bars(sample())}
        self.assertIs(found["S backup against Python pipeline"], True)
        self.assertIs(found["S backup against restic"], False)
        self.assertIs(found["M backup against rustic"], None)
        self.assertIs(found["M restore, offsite, against every peer"], False)
        self.assertIs(found["M backup, offsite, fast, against every peer"], True)

    def test_the_highest_peak_of_all_runs_counts_not_the_median(self):
        results = sample()
        results.data["sets"]["L"]["tools"]["offsite"]["verify"] = [
            {"wall": 1, "cpu": 1, "peak": peak} for peak in (10, 10, 49)
        ]
        bar = next(bar for bar in bars(results) if bar.about.startswith("peak memory, the highest"))
        self.assertEqual((bar.met, bar.got), (False, "49.0 MiB (offsite verify L)"))

    def test_absent_peers_are_named_in_the_page(self):
        text = report.markdown(sample())
        self.assertIn("**Absent:** borg (not installed).", text)
        widths = {line.count("|") for line in text.splitlines() if line.startswith("| M backup ")}
        self.assertEqual(widths, {9, 5})

    def test_the_commands_on_the_page_name_no_folder_of_this_machine(self):
        text = report.commands_part()
        self.assertEqual(text.count("```text"), len(TOOLS))
        self.assertNotIn(str(Path(__file__).parent.parent), text)

    def test_the_page_keeps_what_is_around_the_marks(self):
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            page.write_text("before\n<!-- results: made by make bench -->\nold\n<!-- end of results -->\nafter\n")
            report.insert(page, "results", "new\n")
            self.assertNotIn("old", page.read_text())
            report.insert(page, "results", "newer\n")
            self.assertEqual(
                page.read_text(),
                "before\n<!-- results: made by make bench -->\n\nnewer\n\n<!-- end of results -->\nafter\n",
            )

    def test_the_picture_is_well_formed_and_everything_is_inside(self):
        drawn = picture.draw(sample())
        root = ElementTree.fromstring(drawn)
        self.assertIn("prefers-color-scheme: dark", drawn)
        width, height = float(root.get("width")), float(root.get("height"))
        shapes = [child for child in root.iter() if child.get("x") is not None]
        self.assertGreater(len(shapes), 90)
        for shape in shapes:
            self.assertLess(float(shape.get("x")) + float(shape.get("width", 0)), width)
            self.assertLess(float(shape.get("y")), height)

    def test_without_figures_there_is_no_picture(self):
        self.assertEqual(picture.draw(Results({"sets": {}, "extras": {}})), "")


if __name__ == "__main__":
    unittest.main()
