"""The instructions that each step of a compile and of an inference takes, held against figures that are committed.

A job is a command of the released `strata`, which begins from what the step before it left; what it takes to read and
write that is counted by itself and taken off. Valgrind counts instructions on one thread: time depends on the machine
and on what else it does, the count hardly does. A job that takes more than `TOLERANCE` above its figure fails; one that
takes as much less is told, so that `--bless` may lower it.

Valgrind's CPU has AVX2 and no AVX-512 or VNNI. Of the interpreter's kernels those for AVX2 and the portable ones are
counted, and libraries that choose by CPU take the same way everywhere.

Two runs differ by 0.1 % or less, of the smallest jobs by 0.3 %. What made them differ by more is kept out: the
environment is empty, names of files are relative, there is one thread, and what waits for a clock is not counted (see
`Profile.waiting`). Another libc or compiler may differ by more; the figures name theirs.
"""

import argparse
import collections
import csv
import dataclasses
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

FIGURES = pathlib.Path(__file__).with_suffix(".csv")
# How far a count may be from its figure, as a share of it: ten times what two runs of the smallest jobs differ by.
TOLERANCE = 0.03
# Calls of the clock by one function from which on it is taken to wait.
WAITS = 1000
CLOCK = "clock_gettime"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "RAYON_NUM_THREADS": "1"}


class Refused(Exception):
    """Why nothing can be counted."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of `strata`."""

    arguments: tuple[str, ...]
    #: Vector instructions of the interpreter, if it runs.
    simd: str | None = None

    def environment(self):
        return ENVIRONMENT | ({"STRATA_SIMD": self.simd} if self.simd else {})

    def __str__(self):
        return " ".join([*([f"STRATA_SIMD={self.simd}"] if self.simd else []), "strata", *self.arguments])


@dataclasses.dataclass(frozen=True)
class Job:
    """What is counted: a command, less what another takes that does all but the step."""

    name: str
    command: Command
    less: Command | None = None


def opt(given, pipeline):
    return Command(("opt", given, "--passes", pipeline, "-o", "out.mlir", "-q"))


def passes(name, pipeline, dump):
    """Passes on the dump of a level, which is read and written besides."""
    return Job(name, opt(dump, pipeline), opt(dump, ""))


def bench_run(network, simd, times):
    """Preparing a bundle, and once more than so many inferences of it."""
    return Command(("bench", "run", f"{network}.strata", "--times", str(times), "-q"), simd)


def interpreter(network, simd, times):
    """Preparing a bundle for two inferences, and so many inferences more."""
    few = bench_run(network, simd, 1)
    return [
        Job(f"prepare-{network}-{simd}", few),
        Job(f"infer-{network}-{simd}", bench_run(network, simd, 1 + times), few),
    ]


JOBS = [
    Job("import", opt("mobilenetv2.onnx", "canonicalise")),
    Job("text", opt("dump/2-stages.mlir", "")),
    passes("quantise", "quantise,canonicalise", "dump/0-import.mlir"),
    passes("rewrite", "rewrite-tosa", "dump/1-quant.mlir"),
    passes("form-stages", "form-stages,split-channels", "dump/1-quant.mlir"),
    passes("fuse-layers", "fuse-layers", "dump/2-stages.mlir"),
    passes("fuse-single-layers", "fuse-layers{mode=single}", "dump/2-stages.mlir"),
    passes("schedule", "schedule", "dump/3-phases.mlir"),
    Job("allocate", Command(("alloc", "--input", "buffers.csv", "--output", "offsets.csv", "-q"))),
    Job("emit", Command(("compile", "dump/4-sched.mlir", "-o", "out.strata", "-q")), opt("dump/4-sched.mlir", "")),
    Job("verify", Command(("verify", "mobilenetv2.strata", "-q"))),
    Job("simulate", Command(("report", "mobilenetv2.strata", "-o", "page.html", "-q"))),
    *interpreter("mobilenetv2", "avx2", 8),
    *interpreter("mobilenetv2", "portable", 4),
    *interpreter("fsrcnn", "avx2", 4),
    *interpreter("fsrcnn", "portable", 2),
]


def prepare(strata, folder):
    """Makes what jobs begin from, which is not counted."""

    def run(*arguments):
        # As the jobs, but on all cores.
        subprocess.run([strata, *arguments, "-q"], cwd=folder, check=True)

    for network, size, dumps in [("mobilenetv2", "96x96", ["--dump-levels", "dump"]), ("fsrcnn", "48x32", [])]:
        run("zoo", network, "--size", size, "-o", f"{network}.onnx")
        run("compile", f"{network}.onnx", "-o", f"{network}.strata", "--no-measure", *dumps)
    state = 1
    lines = ["id,lower,upper,size,alignment"]
    for buffer in range(400):
        drawn = []
        for below in (400, 12, 64):
            state = (state * 1_664_525 + 1_013_904_223) % 2**32
            drawn.append((state >> 8) % below)
        lower, length, size = drawn
        lines.append(f"{buffer},{lower},{lower + 1 + length},{64 * (1 + size)},64")
    (folder / "buffers.csv").write_text("\n".join(lines) + "\n", encoding="utf8")


class Profile:
    """What callgrind wrote: instructions by function, and calls with what they took."""

    def __init__(self, text):
        self.total = 0
        #: By caller and callee: how many calls, and the instructions of all of them.
        self.calls = collections.defaultdict(lambda: [0, 0])
        function = callee = ""
        calls = None
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key == "fn":
                function = value
            elif key == "cfn":
                callee = value
            elif key == "calls":
                calls = int(value.split()[0])
            elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
                cost = int(line.split()[1])
                if calls is None:
                    self.total += cost
                else:
                    call = self.calls[function, callee]
                    call[0] += calls
                    call[1] += cost
                    calls = None

    def waiting(self):
        """The instructions of functions that ask for the time again and again. `quanta`, the clock of `egg`, compares
        the CPU's counter with the system's until they agree, which takes now 10 and now 13 million.
        """
        waits = {caller for (caller, callee), (n, _) in self.calls.items() if callee.startswith(CLOCK) and n >= WAITS}
        return sum(cost for (caller, callee), (_, cost) in self.calls.items() if callee in waits and caller != callee)

    def instructions(self):
        return self.total - self.waiting()


class Counter:
    """Counts commands, each once, in a folder that holds what they begin from."""

    def __init__(self, strata, valgrind, folder):
        self.strata = strata
        self.valgrind = valgrind
        self.folder = folder
        self.counted = {}

    def job(self, job):
        """The instructions of a job."""
        return self.command(job.command) - (self.command(job.less) if job.less else 0)

    def command(self, command):
        if command not in self.counted:
            self.counted[command] = self.run(command)
        return self.counted[command]

    def run(self, command):
        profile = self.folder / "profile"
        valgrind = [self.valgrind, "--tool=callgrind", f"--callgrind-out-file={profile}", "--compress-strings=no"]
        done = subprocess.run(
            [*valgrind, self.strata, *command.arguments],
            cwd=self.folder,
            env=command.environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("==")]
            raise Refused(f"{command}: exit {done.returncode}: {' '.join(said)[:500]}")
        return Profile(profile.read_text(encoding="utf8", errors="replace")).instructions()


def made_with():
    """What counts depend on beside the sources."""

    def told(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
        except (OSError, subprocess.CalledProcessError):
            return f"no {command[0]}"

    libc = " ".join(part for part in platform.libc_ver() if part)
    return f"{told('rustc', '--version')}, {libc}, {told('valgrind', '--version')}"


@dataclasses.dataclass
class Figures:
    """What jobs are held against."""

    made_with: str
    instructions: dict[str, int]

    @classmethod
    def read(cls, path):
        if not path.is_file():
            return cls("", {})
        first, *lines = path.read_text(encoding="utf8").splitlines()
        rows = csv.DictReader(lines)
        return cls(first.removeprefix("# "), {row["job"]: int(row["instructions"]) for row in rows})

    def write(self, path):
        rows = [f"# {self.made_with}", "job,instructions"]
        rows += [f"{job},{n}" for job, n in self.instructions.items()]
        path.write_text("\n".join(rows) + "\n", encoding="utf8")


@dataclasses.dataclass
class Verdict:
    """What is said of a job."""

    passes: bool
    text: str


def judge(counted, figure):
    """A count beside its figure, which is None if there is none."""
    if figure is None:
        return Verdict(False, "has no figure; --bless writes one")
    change = counted / figure - 1
    if change > TOLERANCE:
        return Verdict(False, f"{change:+.1%}: MORE than its figure {figure:,}")
    if change < -TOLERANCE:
        return Verdict(True, f"{change:+.1%}: less than its figure {figure:,}, which --bless may lower")
    return Verdict(True, f"{change:+.1%}")


def gate(strata, chosen, path, bless):
    """Counts jobs and prints a line of each. Whether all pass."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise Refused(f"the figures are of x86-64, and this is {platform.machine()}")
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Refused("valgrind counts the instructions, and is not there: `apt-get install valgrind`")
    figures = Figures.read(path)
    counted, failed = {}, False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(strata, folder)
        counter = Counter(strata, valgrind, folder)
        for job in chosen:
            counted[job.name] = counter.job(job)
            verdict = judge(counted[job.name], figures.instructions.get(job.name))
            failed |= not verdict.passes
            print(f"{job.name:28} {counted[job.name]:>15,}  {verdict.text}", flush=True)
    if bless:
        new = figures.instructions | counted
        kept = {job.name: new[job.name] for job in JOBS if job.name in new}
        Figures(made_with(), kept).write(path)
        return True
    gone = sorted(figures.instructions.keys() - {job.name for job in JOBS})
    if gone:
        print(f"there are figures of what is no job: {', '.join(gone)}; --bless takes them out")
    if failed and figures.made_with != made_with():
        print(f"the figures are of {figures.made_with}; this is {made_with()}")
    return not failed and not gone


def main():
    parser = argparse.ArgumentParser(prog="benches/instructions", description=__doc__.split("\n")[0])
    parser.add_argument("--bless", action="store_true", help="write what was counted as the new figures")
    parser.add_argument("--list", action="store_true", help="only name the jobs")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="other figures than those committed")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="only these")
    options = parser.parse_args()
    unknown = [name for name in options.jobs if name not in {job.name for job in JOBS}]
    if unknown:
        parser.error(f"there is no job {', '.join(unknown)}; --list names them")
    chosen = [job for job in JOBS if not options.jobs or job.name in options.jobs]
    if options.list:
        for job in chosen:
            print(f"{job.name:28} {job.command}" + (f"\n{'':21}less   {job.less}" if job.less else ""))
        return 0
    try:
        return 0 if gate(os.environ["STRATA"], chosen, options.figures, options.bless) else 1
    except Refused as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
