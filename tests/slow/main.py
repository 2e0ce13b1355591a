#!/usr/bin/env python3
"""Runs the checks of this directory and prints a line for each; started by `run`, which builds what they need."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

import accuracy
import bad_input
import bits
import book
import classify
import counts
import detect
import dumps
import exports
import floats
import headline
import host
import integers
import layers
import memory
import natural
import node
import ocr
import operators
import orders
import quantised
import soundness
import targets
import tosa_suite
import vectors
from harness import Failed, Skipped, files_removed

MODULES = [
    dumps,
    exports,
    book,
    bits,
    natural,
    targets,
    floats,
    detect,
    classify,
    ocr,
    bad_input,
    vectors,
    node,
    quantised,
    operators,
    orders,
    host,
    integers,
    layers,
    tosa_suite,
    accuracy,
    headline,
    soundness,
    memory,
    counts,
]


def outcome(check):
    """What a check says of itself: passed, FAILED or skipped, and why."""
    try:
        with files_removed():
            return "passed", check.run()
    except Skipped as reason:
        return "skipped", str(reason)
    except Failed as reason:
        return "FAILED", str(reason)
    except Exception as error:  # a defect of the check itself must not end the others
        return "FAILED", f"the check broke: {type(error).__name__}: {error}"


def main():
    parser = argparse.ArgumentParser(prog="tests/slow/run")
    parser.add_argument("--list", action="store_true", help="only name the checks")
    parser.add_argument("--accuracy-table", metavar="FILE", help="only write what the accuracy checks measure as a page")
    parser.add_argument("--jobs", type=int, default=2, help="checks that run at once (default: 2)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only checks whose name begins so")
    options = parser.parse_args()
    if options.accuracy_table:
        return 0 if accuracy.table(options.accuracy_table) else 1

    checks = [check for module in MODULES for check in module.CHECKS]
    unknown = [name for name in options.names if not any(check.name.startswith(name) for check in checks)]
    if unknown:
        parser.error(f"no check begins with {', '.join(unknown)}; --list names them")
    chosen = [c for c in checks if not options.names or c.name.startswith(tuple(options.names))]
    if options.list:
        print("\n".join(check.name for check in chosen))
        return 0

    counts = {"passed": 0, "FAILED": 0, "skipped": 0}

    def tell(check, verdict, detail):
        counts[verdict] += 1
        print(f"{verdict:8} {check.name:36} {detail or ''}".rstrip(), flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        shared = [check for check in chosen if not check.alone]
        for check, (verdict, detail) in zip(shared, pool.map(outcome, shared)):
            tell(check, verdict, detail)
    # What measures time has the machine to itself.
    for check in chosen:
        if check.alone:
            tell(check, *outcome(check))
    print(f"{counts['passed']} passed, {counts['FAILED']} failed, {counts['skipped']} skipped")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
