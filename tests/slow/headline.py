"""YOLOv3 at 2 megapixels on the machine of 4096 multipliers and 8 MiB: the figures that the project promises."""

import json
import re
import time

from harness import STRATA, Check, Failed, call, last_words, once, scratch, strata, zoo

SIZE = "2048x1024"
CONFIGURATIONS = {
    "traffic": ["--objective", "traffic"],
    "latency": ["--objective", "latency"],
    "single": ["--objective", "latency", "--mode", "single"],
}


@once
def compiled(configuration):
    """The statistics of a compile, and the wall seconds that the whole command took."""
    network = zoo("yolov3", SIZE)
    folder = scratch("headline")
    since = time.monotonic()
    flags = ["--target", "x1", "--stats", folder / "stats.json", "--quiet", *CONFIGURATIONS[configuration]]
    done = call([STRATA, "compile", network.path, "-o", folder / "x.strata", *flags])
    seconds = time.monotonic() - since
    if done.returncode != 0:
        raise Failed(f"compile: exit {done.returncode}: {last_words(done)}")
    (folder / "x.strata").unlink()
    return json.loads((folder / "stats.json").read_text(encoding="utf-8")), seconds


def within(bars):
    """Demands that every figure keeps its bar, and prints them."""
    said, broken = [], []
    for what, value, is_kept, bar in bars:
        formats = {float: "{:,.2f}", int: "{:,}"}
        text = f"{what} {formats.get(type(value), '{}').format(value)}"
        said.append(text)
        if not is_kept:
            broken.append(f"{text}, must be {bar}")
    if broken:
        raise Failed("; ".join(broken))
    return ", ".join(said)


def prediction(stats):
    predicted, simulated = stats["plan"]["cycles"], stats["simulated"]["cycles"]
    error = abs(predicted - simulated) / simulated * 100
    return ("predicted cycles off by %", error, error <= 5, "at most 5")


def model():
    figures = compiled("latency")[0]["model"]
    bars = [("macs_direct", 399.08e9, 5e6), ("macs_winograd", 227.28e9, 5e6), ("weights", 61_895_776, 0)]
    return within([(key, figures[key], abs(figures[key] - want) <= slack, f"{want:,.0f}") for key, want, slack in bars])


def traffic():
    stats, _ = compiled("traffic")
    total = stats["plan"]["dram_bytes"]["total"]
    moved = stats["simulated"]["dram_bytes"]["total"]
    return within(
        [
            ("DRAM MB", total / 1e6, total <= 105e6, "at most 105"),
            ("simulated MB", moved / 1e6, moved == total, "as planned"),
            ("phases", stats["plan"]["phases"], True, ""),
            (
                "largest phase",
                stats["plan"]["largest_phase_stages"],
                stats["plan"]["largest_phase_stages"] > 10,
                "over 10",
            ),
            prediction(stats),
        ]
    )


def latency():
    stats, single = compiled("latency")[0], compiled("single")[0]
    rate, base = stats["simulated"]["frames_per_second"], single["simulated"]["frames_per_second"]
    return within(
        [
            ("frames/s", rate, rate >= 18.6, "at least 18.6"),
            ("over single-layer", rate / base, rate >= 1.25 * base, "at least 1.25"),
            (
                "MAC use %",
                stats["simulated"]["mac_utilisation"] * 100,
                stats["simulated"]["mac_utilisation"] >= 0.96,
                "at least 96",
            ),
            ("gap %", stats["plan"]["gap"] * 100, stats["plan"]["gap"] <= 0.04, "at most 4"),
            prediction(stats),
        ]
    )


def single():
    stats, _ = compiled("single")
    return within(
        [
            ("DRAM MB", stats["plan"]["dram_bytes"]["total"] / 1e6, True, ""),
            ("frames/s", stats["simulated"]["frames_per_second"], True, ""),
            prediction(stats),
        ]
    )


def demo():
    """The first command of the README: its table of activations, and its time."""
    since = time.monotonic()
    text = strata("demo", "-o", scratch("demo") / "x.strata").stdout
    seconds = time.monotonic() - since
    classes = [f"{size} MiB" for size in (64, 32, 16, 8, 4, 2, 1)] + ["512 KiB"]
    counts = [int(n) for size in classes for n in re.findall(rf"\b{size}\W+(\d+)\W*$", text, re.MULTILINE)]
    spilled = re.search(r"(\d+) of them are larger than 8 MiB: .* write (\S+ MiB)", text)
    compared = re.search(r"(\S+) output values equal the evaluator's, bit for bit", text)
    return within(
        [
            ("activations", counts, counts == [1, 2, 4, 15, 23, 20, 8, 2], "1, 2, 4, 15, 23, 20, 8, 2"),
            ("spilled", spilled and spilled.groups(), spilled and spilled.groups() == ("7", "192 MiB"), "7, 192 MiB"),
            ("values that agree", compared and compared.group(1), compared, "told"),
            ("s", seconds, seconds < 60, "under 60"),
        ]
    )


def compile_time():
    figures = [(name, *compiled(name)) for name in CONFIGURATIONS]
    bars = []
    for name, stats, seconds in figures:
        gigabytes = stats["compile"]["peak_rss_bytes"] / 2**30
        bars.append((f"{name} s", seconds, seconds < 60, "under 60"))
        bars.append((f"{name} GiB", gigabytes, 0 < gigabytes < 3, "under 3"))
    return within(bars)


CHECKS = [
    Check("headline/model", model, alone=True),
    Check("headline/traffic", traffic, alone=True),
    Check("headline/latency", latency, alone=True),
    Check("headline/single", single, alone=True),
    Check("headline/compile", compile_time, alone=True),
    Check("headline/demo", demo, alone=True),
]
