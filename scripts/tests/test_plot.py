"""The tables and figures of docs/performance.md are made from what cidstore-bench writes."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "lib"))
import chart  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def figure(name, size, runs, unit="triples/s"):
    return {"name": name, "size": size, "unit": unit, "median": sorted(runs)[len(runs) // 2], "runs": runs, "floor": None}


def page_of(tmp_path, figures, **more):
    page = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs" / "performance.md", page)
    data = tmp_path / "figures.json"
    data.write_text(json.dumps({"figures": figures, **more}), encoding="utf-8")
    command = [sys.executable, ROOT / "scripts" / "plot-benchmarks", data, "--page", page]
    subprocess.run(command, check=True, capture_output=True)
    return page.read_text(encoding="utf-8"), tmp_path / "performance"


def test_tables_and_figures(tmp_path):
    figures = [
        figure("ingest req-packed", 1_000_000, [900_000, 1_100_000, 1_000_000]),
        figure("ingest req-packed", 10_000_000, [800_000]),
        figure("ingest req-packed, 0 M to 10 M", 10_000_000, [800_000]),
        figure("inside: sp p50", 1_000_000, [1.25], "µs"),
        figure("echo p50", None, [90.0], "µs"),
    ]
    verdict = {
        "figure": "ingest req-packed", "size": 10_000_000, "unit": "triples/s", "found": 800_000,
        "side": "at least", "limit": 1_000_000, "met": False, "why": "",
    }
    text, folder = page_of(tmp_path, figures, verdicts=[verdict], notes=["2 cores"])
    assert "| REQ, packed | triples/s | 1 000 000 (900 000 to 1 100 000) | 800 000 |" in text
    assert "| sp, p50 | µs | 1.25 |  |" in text
    assert "| ingest req-packed | 10 M | 800 000 triples/s | at least 1 000 000 | **no** |" in text
    assert "| echo p50 | 90.0 | µs |" in text and "- 2 cores" in text
    assert sorted(path.name for path in folder.iterdir()) == ["ingest.svg", "lookups.svg", "slices.svg"]
    tree = ElementTree.parse(folder / "ingest.svg")
    texts = ["".join(node.itertext()) for node in tree.iter(SVG + "text")]
    assert {"Durable ingest", "triples a second", "triples in the store", "REQ, packed"} <= set(texts)
    assert {"1 M", "10 M"} <= set(texts), "the sizes are on the axis"
    again, _ = page_of(tmp_path, figures, verdicts=[verdict], notes=["2 cores"])
    assert again == text, "what is there is replaced"


def test_points_stand_where_their_values_are():
    svg = chart.chart("t", "x", "y", [("a", [(10, 5, 4, 6), (100, 10, 10, 10), (1000, 0, 0, 0)])])
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in ElementTree.fromstring(svg).iter(SVG + "circle")]
    (x0, y0), (x1, y1), (x2, y2) = circles
    assert abs((x2 - x1) - (x1 - x0)) < 0.2, "decades are equally wide"
    assert abs((y2 - y0) - (y0 - y1)) < 0.2 and y1 < y0 < y2, "and 5 stands between 0 and 10"
    assert chart.chart("t", "x", "y", [("a", [])]) is None


def test_labels_do_not_lie_on_each_other():
    labels = chart.spread_out([[100, "a", ""], [101, "b", ""], [300, "c", ""], [340, "d", ""]], 44, 348)
    heights = [label[0] for label in labels]
    assert [label[1] for label in labels] == ["a", "b", "c", "d"]
    assert all(below - above >= 15 for above, below in zip(heights, heights[1:])) and heights[-1] <= 348


def test_ticks_are_round_numbers_around_the_values():
    assert chart.linear_ticks(1_100_000) == [0, 200_000, 400_000, 600_000, 800_000, 1_000_000, 1_200_000]
    assert chart.linear_ticks(5) == [0, 1, 2, 3, 4, 5]
    assert chart.log_ticks(90, 52_000) == [10, 100, 1000, 10_000, 100_000]
    assert [chart.short(n) for n in (1e6, 2.5e5, 0.5, 1e9)] == ["1 M", "250 k", "0.5", "1 G"]
