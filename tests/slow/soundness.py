"""The promises of the machine, on random programs and networks: more of what `cargo test` tries a few of.

`soundness/orders`: the verifier against all orders of steps of small random programs. `soundness/networks`: random networks
compiled both ways for machines of many sizes, against the evaluator, in fixed and in checked random orders. How many
are tried is set by STRATA_PROGRAMS and STRATA_NETWORKS; the first seed of either by STRATA_SEED. `soundness/plans`:
tests of the planner that `cargo test` leaves out, because they take long.
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


def tested(what, *arguments):
    """What `cargo test` prints of tests that pass."""
    counts = {"STRATA_PROGRAMS": PROGRAMS, "STRATA_NETWORKS": NETWORKS, "STRATA_SEED": SEED}
    # The whole workspace is named so that no package is built with other features a second time.
    done = subprocess.run(
        ["cargo", "test", "--release", "--workspace", *arguments],
        cwd=ROOT,
        env={**counts, **os.environ},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    demand(done.returncode == 0, f"{what}: {(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def counted(test, package):
    """What a test prints of its random cases."""
    printed = tested(f"{package}, test {test}", "--test", test, "--", "--nocapture")
    told = re.search(r"^\d+ \w+ from seed .*$", printed, re.MULTILINE)
    demand(told, f"{package}, test {test} counts nothing")
    return told.group(0)


def long_tests():
    """How many tests of the crates run that are ignored because they take long."""
    printed = tested("ignored tests", "--lib", "--", "--ignored")
    n = sum(int(passed) for passed in re.findall(r"test result: ok\. (\d+) passed", printed))
    demand(n > 0, "no test is ignored")
    return f"{n} long tests"


CHECKS = [
    Check("soundness/orders", functools.partial(counted, "interleavings", "strata-isa-spec"), alone=True),
    Check("soundness/networks", functools.partial(counted, "networks", "strata-passes"), alone=True),
    Check("soundness/plans", long_tests, alone=True),
]
