#!/usr/bin/env python3
"""Judge modules by the TOSA project's reference model.

Every folder named on the command line, or below one that is, that holds a case.mlir is a case: a module of plain
TOSA with one function, in<i>.npy for its arguments, and out<i>.npy that some other implementation computed. The
module is serialised by tosa-opt and run by tosa_reference_model; integers must be equal bit for bit, floats within
1e-5 relatively or 1e-6 of the tensor's largest magnitude (sums cancel). Prints each mismatch and a summary; the exit status is 1 if
any case failed.
"""

import argparse
import collections
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy

TOOLS = pathlib.Path(sys.executable).parent
SCHEMA = next(iter(pathlib.Path(sys.prefix).glob("lib/python*/site-packages/bin/tosa.fbs")), None)


class CaseError(Exception):
    """Why a case has no verdict: a tool rejected it, or a file is missing."""


def call(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        text = (done.stderr + done.stdout).strip().splitlines()
        raise CaseError(f"{pathlib.Path(command[0]).name} failed: " + " | ".join(text[:6]))


def reference(mlir, inputs, n_outputs, scratch):
    """The reference model's results for a module on .npy inputs."""
    flatbuffer = scratch / "case.tosa"
    call([TOOLS / "tosa-opt", mlir, "--tosa-serialize", f"--tosa-flatbuffer-filename={flatbuffer}", "-o", "/dev/null"])
    outputs = [scratch / f"out{i}.npy" for i in range(n_outputs)]
    command = [TOOLS / "tosa_reference_model", "--tosa_file", flatbuffer, "--operator_fbs", SCHEMA]
    command += ["--tosa_level", "NONE"]
    # The model reads only headers padded as NumPy pads them, so inputs are written anew.
    rewritten = [scratch / f"in{i}.npy" for i in range(len(inputs))]
    for source, target in zip(inputs, rewritten):
        numpy.save(target, numpy.load(source))
    if inputs:
        command += ["--ifm_name", ",".join(f"TosaInput_{i}" for i in range(len(inputs)))]
        command += ["--ifm_file", ",".join(map(str, rewritten))]
    command += ["--ofm_name", ",".join(f"TosaOutput_{i}" for i in range(n_outputs))]
    command += ["--ofm_file", ",".join(map(str, outputs))]
    call(command)
    missing = [path.name for path in outputs if not path.exists()]
    if missing:
        raise CaseError(f"the reference model wrote no {', '.join(missing)}")
    return [numpy.load(path) for path in outputs]


def difference(want, got):
    """What differs between two arrays, or None."""
    if want.shape != got.shape:
        return f"shape {got.shape}, the reference has {want.shape}"
    if want.dtype.kind == "f":
        scale = float(numpy.nanmax(numpy.abs(want), initial=0.0))
        close = numpy.isclose(got, want, rtol=1e-5, atol=1e-6 * scale, equal_nan=True)
    else:
        close = got.astype(numpy.int64) == want.astype(numpy.int64)
    if close.all():
        return None
    at = tuple(int(i) for i in numpy.argwhere(~close)[0])
    return f"{int((~close).sum())} of {close.size} differ, first at {at}: {got[at]}, the reference has {want[at]}"


def numbered(folder, stem):
    """The files <stem>0.npy, <stem>1.npy, ... of a folder."""
    paths = []
    while (path := folder / f"{stem}{len(paths)}.npy").exists():
        paths.append(path)
    return paths


def judge(folder):
    """None if the case agrees with the reference model, else what is wrong."""
    outputs = numbered(folder, "out")
    try:
        if not outputs:
            raise CaseError("no out0.npy to judge")
        with tempfile.TemporaryDirectory() as scratch:
            inputs = numbered(folder, "in")
            wants = reference(folder / "case.mlir", inputs, len(outputs), pathlib.Path(scratch))
        differences = [difference(want, numpy.load(path)) for want, path in zip(wants, outputs)]
    except CaseError as error:
        return str(error)
    wrong = [f"result {i}: {text}" for i, text in enumerate(differences) if text]
    return "; ".join(wrong) or None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=2, help="cases judged at once")
    options = parser.parse_args()
    if SCHEMA is None:
        parser.error("tosa.fbs is not installed beside this Python: pip install tosa-tools")
    cases = sorted({path.parent for folder in options.folders for path in folder.rglob("case.mlir")})
    if not cases:
        parser.error("no case.mlir found")
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(pool.map(judge, cases))
    failed = collections.Counter()
    for case, verdict in zip(cases, verdicts):
        if verdict:
            failed[case.name] += 1
            print(f"{case}: {verdict}")
    print(f"{len(cases) - failed.total()} of {len(cases)} cases agree with the TOSA reference model")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
