"""The promises of the machine, on random programs and networks: more of what `cargo test` tries a few of.

`soundness/orders`: the verifier against all orders of steps of small random programs. `soundness/networks`: random networks
compiled both ways for machines of many sizes, against the evaluator, in fixed and in checked random orders. How many
are tried is set by STRATA_PROGRAMS and STRATA_NETWORKS; the first seed of either by STRATA_SEED.
"""

import functools
import os
import re
import subprocess

from harness import ROOT, Check, demand

# What takes about five minutes on two cores, from a seed that the tests of `cargo test` do not reach.
PROGRAMS = "5000"
NETWORKS = "5000"
SEED = "1000000"
TIME_LIMIT = 6 * 3600


def counted(test, package):
    """What a test prints of its random cases."""
    counts = {"STRATA_PROGRAMS": PROGRAMS, "STRATA_NETWORKS": NETWORKS, "STRATA_SEED": SEED}
    # The whole workspace is named so that no package is built with other features a second time.
    done = subprocess.run(
        ["cargo", "test", "--quiet", "--release", "--workspace", "--test", test, "--", "--nocapture"],
        cwd=ROOT,
        env={**counts, **os.environ},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    told = re.search(r"^\d+ \w+ from seed .*$", done.stdout, re.MULTILINE)
    demand(done.returncode == 0, f"{package}, test {test}: {(done.stdout + done.stderr)[-4000:]}")
    demand(told, f"{package}, test {test} counts nothing")
    return told.group(0)


CHECKS = [
    Check("soundness/orders", functools.partial(counted, "interleavings", "strata-isa-spec"), alone=True),
    Check("soundness/networks", functools.partial(counted, "networks", "strata-passes"), alone=True),
]
