"""The book, built by mdBook as its readers build it."""

import re

from harness import ROOT, TOOLS, Check, Skipped, call, demand, last_words, scratch

MDBOOK = TOOLS / "mdbook"


def built():
    """mdBook builds it without a warning, and with a page for every chapter."""
    if not MDBOOK.exists():
        raise Skipped("mdbook is not installed")
    folder = scratch("book") / "book"
    done = call([MDBOOK, "build", ROOT / "docs/book", "--dest-dir", folder])
    demand(done.returncode == 0, f"mdbook: {last_words(done)}")
    said = done.stdout + done.stderr
    problems = [line.strip() for line in said.splitlines() if re.search(r"\b(WARN|ERROR)\b", line)]
    demand(not problems, f"{len(problems)} warnings, such as: {next(iter(problems), None)}")
    chapters = re.findall(r"\]\((.*)\.md\)", (ROOT / "docs/book/src/SUMMARY.md").read_text(encoding="utf-8"))
    missing = [chapter for chapter in chapters if not (folder / f"{chapter}.html").exists()]
    demand(chapters and not missing, f"no page for {missing}")
    return f"{len(chapters)} chapters"


CHECKS = [Check("book/built", built)]
