#!/usr/bin/env python3
"""Writes a sample of TOSA's generated unit tests: generate.py FOLDER OP...

The tests are those that `tosa_verif_build_tests` of the TOSA project makes for the integer profile, with the extensions
for 16-bit activations and double rounding, of the ops named. All of them are listed; of those that must pass, some of each
op and combination of element types are written, of those that must be refused, one of each op and kind of error, drawn
with a fixed seed. The last line of the output says how many: `sampled 8 of 24, 5 of 61`, first those that must pass.
"""

import pathlib
import random
import sys

import generator.tosa_verif_build_tests as tool
import tosa_reference_model

SEED = 1
#: Tests of a group, for tests that must pass and for tests that must be refused.
SAMPLE = {False: 8, True: 1}
#: Extents of tensors: small, so that a reference model written for clarity is quick.
EXTENTS = "1,16"


def sample(tests, ops, generator):
    """Some of each group of tests, in their order."""
    groups = {}
    for at, test in enumerate(tests):
        [op] = [op for op in ops if is_of(test.opName, op)]
        types = None if test.error else str(test.dtype)
        groups.setdefault((op, types, test.error), []).append(at)
    chosen = []
    for (_, _, error), places in groups.items():
        chosen += generator.sample(places, min(len(places), SAMPLE[error is not None]))
    return [tests[at] for at in sorted(chosen)]


def main():
    folder, *ops = sys.argv[1:]
    counts = []
    list_all = tool.TosaTestSelectList.all

    def some(self, profiles_chosen=None, extensions_chosen=None):
        tests = list_all(self, profiles_chosen=profiles_chosen, extensions_chosen=extensions_chosen)
        # The tool's own regular expression for ops matches beginnings of names only.
        tests = [test for test in tests if any(is_of(test.opName, op) for op in ops)]
        chosen = sample(tests, ops, random.Random(SEED))
        counts.append(f"{len(chosen)} of {len(tests)}")
        return chosen

    tool.TosaTestSelectList.all = some
    library = pathlib.Path(tosa_reference_model.__file__).parent / "libtosa_reference_generate_lib.so"
    flags = ["--profile", "tosa-pro-int", "--extension", "tosa-ext-int16", "tosa-ext-doubleround"]
    flags += ["--filter", "|".join(f"({op})" for op in ops), "--test-type", "both", "--seed", str(SEED)]
    flags += ["--tensor-dim-range", EXTENTS, "--generate-lib-path", str(library), "-o", folder]
    if status := tool.main(flags):
        return status
    print(f"sampled {', '.join(counts)}")
    return 0


def is_of(name, op):
    """Whether a test's op, which has a kernel's extents in its name if it slides one, is `op`."""
    return name == op or name.startswith(f"{op}_") and name.removeprefix(f"{op}_").replace("x", "").isdigit()


if __name__ == "__main__":
    sys.exit(main())
