"""Reqon against programs written by hand: whole processes, in turn, and the bars they have to stay under.

make bench                                   all of it, into benchmarks/RESULTS.md and RESULTS.json
python -m benchmarks --only w1,w5 --times 3  some of it, to the terminal
python -m benchmarks --compare old.json      and how the ratios have moved since
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from benchmarks.measure import in_turn, median
from benchmarks.scaling import Scaling, pulled, streamed
from benchmarks.workloads import Bench, Workload

HERE = Path(__file__).parent
LIBRARIES = ("reqon", "aiohttp", "uvloop", "orjson", "msgspec", "dlt")


@contextmanager
def api() -> Iterator[str]:
    """The API in a process of its own; its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.api"], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.wait(10)


def row(load: Workload, folder: Path, times: int) -> dict[str, Any]:
    """One line of the table."""
    pairs = in_turn(load.ours, load.theirs, folder, times=times)
    ratio, ours, theirs = median(pairs.ratios), pairs.ours, pairs.theirs
    found = {
        "name": load.name,
        "what": load.what,
        "ours": median([f.wall for f in ours]),
        "theirs": median([f.wall for f in theirs]),
        "ratio": ratio,
        "low": min(pairs.ratios),
        "high": max(pairs.ratios),
        "cpu": median(pairs.cpu_ratios),
        "bar": load.ratio,
        "peak": pairs.peak,
        "memory": load.memory,
    }
    met = (load.ratio is None or ratio <= load.ratio) and (load.memory is None or pairs.peak <= load.memory)
    if load.cost:
        each = [(a.cpu - b.cpu) / load.cost * 1e6 for a, b in zip(ours, theirs, strict=True)]
        found["cost_us"] = median(each)
        met = met and found["cost_us"] <= 25
    return found | {"met": met}


def table(rows: Sequence[dict[str, Any]], earlier: dict[str, float]) -> Iterator[str]:
    yield "| | work | ours | theirs | ratio (range) | of CPU | bar | peak | bar | |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for r in rows:
        moved = f", was {earlier[r['name']]:.2f}" if r["name"] in earlier else ""
        cost = f", {r['cost_us']:.1f} µs an item" if "cost_us" in r else ""
        bar = "" if r["bar"] is None else f"{r['bar']:.2f}"
        memory = "" if r["memory"] is None else f"{r['memory']:.0f} MB"
        yield (
            f"| {r['name']} | {r['what']} | {r['ours']:.2f} s | {r['theirs']:.2f} s "
            f"| {r['ratio']:.2f} ({r['low']:.2f} to {r['high']:.2f}){moved}{cost} | {r['cpu']:.2f} | {bar} "
            f"| {r['peak']:.0f} MB | {memory} | {'met' if r['met'] else 'MISSED'} |"
        )


def scale_table(scalings: Sequence[Scaling]) -> Iterator[str]:
    yield "| | work | items | time | of CPU | one item more | peak | bar |"
    yield "|---|---|---|---|---|---|---|---|"
    for s in scalings:
        for i, size in enumerate(s.sizes):
            more = f"{s.marginal[i - 1]:.1f} µs" if i else ""
            yield (
                f"| {s.name} | {s.what} | {size.items:,} | {size.wall:.2f} s | {size.cpu:.2f} s | {more} "
                f"| {size.peak:.0f} MB | {s.memory:.0f} MB |"
            )


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=7, help="counted pairs of each")
    options.add_argument("--only", default="", help="names, with commas between; `scaling` for the last table")
    options.add_argument("--compare", type=Path, help="an earlier RESULTS.json")
    options.add_argument("--write", action="store_true", help="write RESULTS.md and RESULTS.json")
    chosen = options.parse_args()
    only = {name for name in chosen.only.split(",") if name}
    earlier = (
        {r["name"]: r["ratio"] for r in orjson.loads(chosen.compare.read_bytes())["rows"]} if chosen.compare else {}
    )
    rows, scalings = [], []
    with api() as url, tempfile.TemporaryDirectory() as scratch:
        bench = Bench(url, Path(scratch))
        for load in bench.all():
            if not only or load.name in only:
                rows.append(row(load, bench.folder, chosen.times))
                print(list(table(rows[-1:], earlier))[-1], flush=True)
        if not only or "scaling" in only:
            scalings = [pulled(bench, times=chosen.times // 2), streamed(bench, times=1)]
            print(*scale_table(scalings), sep="\n")
    if chosen.write:
        text = ["# Results", "", f"{versions()}; {platform.machine()}, pairs of each: {chosen.times}.", ""]
        text += ["Ratios of pairs by the clock, their median and range. Compare ratios, not seconds.", ""]
        text += [*table(rows, earlier), "", *scale_table(scalings), ""]
        (HERE / "RESULTS.md").write_text("\n".join(text))
        (HERE / "RESULTS.json").write_bytes(
            orjson.dumps({"versions": versions(), "rows": rows}, option=orjson.OPT_INDENT_2)
        )


main()
