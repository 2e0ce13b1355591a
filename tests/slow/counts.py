"""Instructions of each step, held against `benches/instructions.csv`, and that the comparison finds what is too much."""

import contextlib
import importlib.util
import io
import pathlib

from harness import ROOT, STRATA, Check, Failed, demand, scratch


def loaded():
    """The program `benches/instructions.py` as a module."""
    path = ROOT / "benches/instructions.py"
    spec = importlib.util.spec_from_file_location("benches_instructions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gated(program, chosen, figures):
    """Whether jobs pass, and the lines that are printed of them."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            passed = program.gate(str(STRATA), chosen, pathlib.Path(figures), bless=False)
    except program.Refused as reason:
        raise Failed(str(reason)) from None
    return passed, printed.getvalue()


def judged():
    """A job that takes 4 % more than its figure fails, one that takes as much less is told, and neither 2 %."""
    program = loaded()
    demand(not program.judge(1040, 1000).passes, "4 % more passes")
    demand(program.judge(1020, 1000) == program.Verdict(True, "+2.0%"), "2 % more is told")
    demand(program.judge(980, 1000) == program.Verdict(True, "-2.0%"), "2 % less is told")
    less = program.judge(960, 1000)
    demand(less.passes and "--bless" in less.text, f"of 4 % less it is said: {less.text}")
    demand(not program.judge(1000, None).passes, "a job without a figure passes")

    waits = """fn=spins
1 50
cfn=clock_gettime@@GLIBC_2.17
calls=5000 0
2 700
fn=clock_gettime@@GLIBC_2.17
3 700
fn=main
4 20
cfn=spins
calls=1 0
5 750
cfn=clock_gettime@@GLIBC_2.17
calls=2 0
6 8
fn=clock_gettime@@GLIBC_2.17
3 8
"""
    profile = program.Profile(waits)
    demand(profile.total == 778, f"all lines are {profile.total}")
    demand(profile.instructions() == 28, f"without what waits they are {profile.instructions()}")

    # The same end to end, on the job that takes least, with figures as if it had taken less and had grown.
    job = next(job for job in program.JOBS if job.name == "verify")
    path = scratch("figures") / "figures.csv"
    other = program.Figures("nothing", {"verify": 1})
    other.write(path)
    passed, lines = gated(program, [job], path)
    demand(not passed and "MORE" in lines and "the figures are of nothing" in lines, f"it printed: {lines}")
    counted = int(lines.split()[1].replace(",", ""))
    for growth, passes in [(1.04, False), (1.01, True)]:
        program.Figures("nothing", {"verify": round(counted / growth)}).write(path)
        passed, lines = gated(program, [job], path)
        demand(passed == passes, f"a figure that it exceeds by {growth - 1:.0%}: {lines}")
    program.Figures("nothing", {"verify": counted, "gone": 1}).write(path)
    demand(not gated(program, [job], path)[0], "a figure of what is no job passes")
    return "4 % more fails, 1 % more does not"


def within():
    """No job takes more than its figure."""
    program = loaded()
    passed, lines = gated(program, program.JOBS, program.FIGURES)
    demand(passed, f"benches/instructions --bless writes figures that are meant to change:\n{lines.rstrip()}")
    less = sum("may lower" in line for line in lines.splitlines())
    return f"{len(program.JOBS)} jobs" + (f", of {less} of which the figures may be lowered" if less else "")


CHECKS = [
    Check("instructions/judged", judged, alone=True),
    Check("instructions/within", within, alone=True),
]
