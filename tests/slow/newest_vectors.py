"""Writes the node vectors of the installed `onnx` as folders, as its wheels had them up to 1.19: `newest_vectors.py OUT_DIR`.

Runs in an environment of its own, with the newest `onnx`: its test cases are code, and the wheel has no files of them.
"""

import json
import pathlib
import sys
import warnings

import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def stored(value, port):
    """What an input or output is as a message; lists are sequences, `None` is an optional without a value."""
    kind = port.type.WhichOneof("value")
    if isinstance(value, (onnx.TensorProto, onnx.SequenceProto, onnx.OptionalProto)):
        return value
    if kind == "sequence_type":
        return numpy_helper.from_list(value, port.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, port.name)
    return numpy_helper.from_array(value, port.name)


def write(folder, case):
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    (folder / "data.json").write_text(json.dumps({"rtol": case.rtol, "atol": case.atol}), encoding="utf-8")
    for at, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{at}"
        data.mkdir()
        for kind, values, ports in [
            ("input", inputs, case.model.graph.input),
            ("output", outputs, case.model.graph.output),
        ]:
            for number, (value, port) in enumerate(zip(values, ports)):
                (data / f"{kind}_{number}.pb").write_bytes(stored(value, port).SerializeToString())


def main():
    out = pathlib.Path(sys.argv[1])
    warnings.simplefilter("ignore")
    failed = []
    for case in collect_testcases(None):
        try:
            write(out / case.name, case)
        except Exception as error:
            failed.append(f"{case.name}: {type(error).__name__}: {error}")
    print(onnx.__version__, *failed, sep="\n")


main()
