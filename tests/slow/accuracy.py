"""The int8 networks of trained models are at least as near to f32 as those of onnxruntime's static quantiser.

`tests/slow/run --accuracy-table FILE` writes what is measured as a page.
"""

import functools
import pathlib

import ptq
from harness import Check, Failed, demand

# Decibels that two ways of being equally good may differ by on a few samples.
NOISE = 0.3
# What an output counts at most in the mean over all.
ENOUGH = 40.0
# What Strata's options do one by one, in the table.
VARIANTS = {
    "plain": ["--equalise", "off", "--bias-correction", "off"],
    "equalised": ["--bias-correction", "off"],
    "corrected": ["--equalise", "off"],
    "min-max": ["--range", "min-max"],
    "percentile": ["--range", "percentile"],
    "entropy": ["--range", "entropy"],
}


def best_of_theirs(subject):
    """The best of onnxruntime's methods for each output, its best agreement, and why any method failed."""
    scores, failures = [], []
    for method in ptq.METHODS:
        try:
            scores.append(ptq.theirs(subject, method))
        except Failed as reason:
            failures.append(str(reason))
    if not scores:
        return None, None, failures
    ratios = [max(ratios[at] for ratios, _ in scores) for at in range(len(subject.outputs))]
    agreements = [agreement for _, agreement in scores if agreement is not None]
    return ratios, max(agreements, default=None), failures


def is_worse(ours, theirs):
    return ours < theirs - NOISE


def check(name):
    subject = ptq.case(name)
    ratios, agreement = ptq.ours(subject)
    theirs, their_agreement, failures = best_of_theirs(subject)
    shown = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    if theirs is None:
        # Where onnxruntime's quantiser gives nothing to compare with, the network must still be right.
        demand(min(ratios) > 15 and agreement in (None, 1.0), f"{shown} dB, agreement {agreement}; {failures[0]}")
        return f"{shown} dB; {failures[0]}"
    compared = ", ".join(f"{ratio:.1f}" for ratio in theirs)
    for output, mine, other in zip(subject.outputs, ratios, theirs):
        demand(not is_worse(mine, other), f"{output}: {mine:.1f} dB, onnxruntime {other:.1f}")
    if agreement is not None:
        demand(agreement >= their_agreement, f"agreement {agreement:.3f}, onnxruntime {their_agreement:.3f}")
    return f"{shown} dB against {compared}" + ("" if agreement is None else f"; agreement {agreement:.3f}")


CHECKS = [Check(f"accuracy/{name}", functools.partial(check, name)) for name in ptq.SUBJECTS]

HEAD = """# Accuracy of post-training quantisation

Made by `tests/slow/run --accuracy-table docs/accuracy.md`; do not edit.

Signal to noise of every output of the trained models of `tests/models/models.json` in int8 against f32 in onnxruntime, in decibels, over samples that were not calibrated on.
`strata` is what `strata compile` does unless told otherwise: ranges by mean square error, equalisation and bias correction.
`onnxruntime` is the best of its static quantiser's methods MinMax, Entropy and Percentile for that very output: QDQ, signed 8-bit activations, signed 8-bit weights with a scale a channel, calibrated on the same samples.
The verdict is `worse` if Strata's is lower by more than {noise} dB.
The agreement is the share of samples with the same likeliest class, of places with the same likeliest character, or of what is clearly seen on one side that is not clearly denied on the other: scores of objects, faces or text.

"""
OPTIONS = """
## What the options do

The same figures with one thing changed: `plain` is without equalisation and bias correction, `equalised` and `corrected` with one of them; the others are with both, but other ranges.

"""


def cell(value, form="{:.1f}"):
    return "-" if value is None else form.format(value)


def table(path):
    """Writes the page; returns whether no row is worse."""
    columns = ["model", "output", "strata", "onnxruntime", "verdict", "agreement", "onnxruntime's agreement"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    options = ["| model | output | strata | " + " | ".join(VARIANTS) + " |", "|" + "---|" * (3 + len(VARIANTS))]
    notes, sums, n_rows, fine = [], dict.fromkeys(["strata", *VARIANTS], 0.0), 0, True
    for name in ptq.SUBJECTS:
        subject = ptq.case(name)
        ratios, agreement = ptq.ours(subject)
        theirs, their_agreement, failures = best_of_theirs(subject)
        notes += [f"- {name}: {remark}" for remark in [*failures, *sorted(subject.remarks)]]
        variants = {variant: ptq.ours(subject, *flags)[0] for variant, flags in VARIANTS.items()}
        for at, output in enumerate(subject.outputs):
            other = theirs[at] if theirs else None
            worse = other is not None and is_worse(ratios[at], other)
            verdict = "no comparison" if other is None else "worse" if worse else "at least as good"
            fine &= not worse
            agreements = [cell(agreement, "{:.3f}"), cell(their_agreement, "{:.3f}")] if at == 0 else ["", ""]
            cells = [name, f"`{output}`", cell(ratios[at]), cell(other), verdict, *agreements]
            lines.append("| " + " | ".join(cells) + " |")
            row = [cell(variants[variant][at]) for variant in VARIANTS]
            options.append("| " + " | ".join([name, f"`{output}`", cell(ratios[at]), *row]) + " |")
            for variant in sums:
                # Beyond what can be heard more is no better, and would drown the rest.
                sums[variant] += min(ENOUGH, ratios[at] if variant == "strata" else variants[variant][at])
            n_rows += 1
    means = [cell(total / n_rows) for total in sums.values()]
    options.append("| mean, up to 40 dB each |  | " + " | ".join(means) + " |")
    page = HEAD.format(noise=NOISE) + "\n".join(lines) + "\n" + OPTIONS + "\n".join(options) + "\n"
    if notes:
        page += "\n## What onnxruntime's quantiser could not do\n\n" + "\n".join(notes) + "\n"
    pathlib.Path(path).write_text(page, encoding="utf-8")
    return fine
