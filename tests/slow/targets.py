"""The zoo at its usual sizes on every preset target: there is a plan, and the bundle on disk takes what the plan says; where SRAM
is least, it computes the evaluator's integers too.
"""

import functools
import itertools
import json
import re

import natural
from harness import ROOT, ZOO, Check, demand, scratch, strata, told_of_all, zoo

PRESETS = sorted(path.stem for path in (ROOT / "isa-spec/targets").glob("*.toml"))
OBJECTIVES = ["latency", "traffic"]

# Cycles and DRAM bytes may differ by this much from what was predicted.
TOLERANCE_PERCENT = 2
# Planning thousands of stages takes its time.
LIMIT_SECONDS = 1200
# Networks whose tensors are much larger than the smallest target's SRAM.
JUDGED = [
    ("unet", "512x512", "micro"),
    ("fsrcnn", "960x540", "micro"),
    ("fsrcnn", "960x540", "tile"),
]


def usual_sizes():
    """The networks of the zoo, and the sizes that it makes unless told otherwise."""
    return dict(re.findall(r"^(\S+) +(\d+x\d+) ", strata("zoo").stdout, re.MULTILINE))


def off_by(predicted, simulated):
    return abs(predicted - simulated) / simulated * 100


def predicted(network, target, objective):
    """How far the plan of a compile is from the time and the traffic of the bundle that it wrote, in percent."""
    folder = scratch("targets")
    bundle = folder / "x.strata"
    flags = ["--target", target, "--objective", objective, "--no-measure", "--quiet"]
    strata("compile", network.path, "-o", bundle, *flags, limit=LIMIT_SECONDS)
    strata("run", bundle, "--timing", "--stats", folder / "stats.json", "--quiet")
    stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    plan, simulated = stats["plan"], stats["simulated"]
    error = max(
        off_by(plan["cycles"], simulated["cycles"]),
        off_by(plan["dram_bytes"]["total"], simulated["dram_bytes"]["total"]),
    )
    demand(error <= TOLERANCE_PERCENT, f"off by {error:.1f} %")
    for phase in simulated["phases"]:
        for times in [*phase["stages"], *phase["partitions"], *phase["dma"].values()]:
            spent = sum(cycles for what, cycles in times.items() if what in simulated["array"])
            demand(spent == phase["cycles"], f"{times} does not add up to {phase['cycles']}")
    bundle.unlink()
    return f"gap {plan['gap'] * 100:.1f} %"


def check(name):
    network = zoo(name, usual_sizes()[name])
    aims = itertools.product(PRESETS, OBJECTIVES)
    return told_of_all((" ".join(aim), functools.partial(predicted, network, *aim)) for aim in aims)


def all_networks():
    sizes = usual_sizes()
    demand(set(sizes) == set(ZOO), f"the zoo has {', '.join(sizes)}, the checks know {', '.join(ZOO)}")


def judged(name, size, target):
    return f"{natural.judged(zoo(name, size), target)} integers"


CHECKS = [
    Check("targets/zoo", all_networks),
    *(Check(f"targets/{name}", functools.partial(check, name)) for name in ZOO),
    *(Check(f"targets/{at[0]}@{at[1]}-{at[2]}", functools.partial(judged, *at)) for at in JUDGED),
]
