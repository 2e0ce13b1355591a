#!/usr/bin/env python3
"""Prints the programs of a bundle as `strata disasm` does, knowing nothing of the instruction set but docs/generated/isa.json.

Usage: docs/decode.py FILE.strata. It is an example of how a program of another language reads what Strata writes.
"""

import functools
import json
import pathlib
import struct
import sys
import zipfile

ISA = pathlib.Path(__file__).parent / "generated/isa.json"


class Bytes:
    """Bytes that are read one value after another."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, length):
        taken = self.data[self.at : self.at + length]
        if len(taken) != length:
            raise ValueError(f"byte {self.at}: expected {length} more bytes, found {len(taken)}")
        self.at += length
        return taken

    def integer(self, bits, signed=False):
        return int.from_bytes(self.take(bits // 8), "little", signed=signed)


def text(form, data):
    """The next value, of a type that `isa.json` describes, as text."""
    match form["kind"]:
        case "integer":
            value = data.integer(form["bits"], form["signed"])
            return form["text"].format(decimal=value, hexadecimal=f"{value:x}")
        case "enum":
            code = data.integer(8)
            return next(case["text"] for case in form["cases"] if case["code"] == code)
        case "record":
            return form["text"].format(**{field["name"]: text(field["type"], data) for field in form["fields"]})
        case "optional":
            return text(form["of"], data) if data.integer(8) else form["none"]
        case "array":
            return form["separator"].join(text(form["of"], data) for _ in range(form["length"]))
    raise ValueError(f"isa.json describes a type by `{form['kind']}`, which this decoder does not know")


@functools.cache
def instruction_set():
    return json.loads(ISA.read_text(encoding="utf-8"))


def instructions(program):
    """The instructions of a program: row of the table, and fields by name as text."""
    isa = instruction_set()
    rows = {row["opcode"]: row for row in isa["instructions"]}
    data = Bytes(program)
    magic, version, _ = data.take(4), data.integer(16), data.integer(16)
    if (magic, version) != (isa["magic"].encode(), isa["version"]):
        raise ValueError(f"expected {isa['magic']} of version {isa['version']}, found {magic} of version {version}")
    for _ in range(data.integer(32)):
        opcode, length = struct.unpack("<HH", data.take(4))
        if opcode not in rows:
            raise ValueError(f"byte {data.at - 4}: unknown opcode {opcode:#06x}")
        fields = Bytes(data.take(length))
        row = rows[opcode]
        yield row, {field["name"]: text(isa["types"][field["type"]], fields) for field in row["fields"]}
        if fields.at != length:
            raise ValueError(f"byte {data.at}: {length - fields.at} bytes too many for `{row['mnemonic']}`")


def disassembled(program, names):
    """The lines of a program; names of layers stand in comments."""
    inside = False
    for row, fields in instructions(program):
        mnemonic = row["mnemonic"]
        inside = mnemonic == "phase" or inside and mnemonic != "end_phase"
        depth = 2 if row["group"] != "control" else int(inside and mnemonic != "phase")
        if mnemonic == "phase":
            yield ""
        line = "  " * depth + " ".join([mnemonic, *(f"{name}={value}" for name, value in fields.items())])
        if mnemonic == "stage" and int(fields["source"]) < len(names):
            line += "  ; " + names[int(fields["source"])].replace("\n", " ").replace("\r", " ")
        yield line


def programs(bundle):
    """The programs of a bundle: number of the part, bytes, names of layers."""
    with zipfile.ZipFile(bundle) as archive:
        names = json.loads(archive.read("debug.json"))["names"]
        found = [entry for entry in archive.namelist() if entry.endswith("program.bin")]
        for entry, of in zip(found, names, strict=True):
            folder = entry.removesuffix("program.bin").strip("/")
            yield int(folder.removeprefix("part") or 0), archive.read(entry), of


def lines(bundle):
    """What `strata disasm` prints of a bundle."""
    found = list(programs(bundle))
    for part, program, names in found:
        if len(found) > 1:
            yield f"; part {part}"
        yield from disassembled(program, names)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print("\n".join(lines(sys.argv[1])))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
