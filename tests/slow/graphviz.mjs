// Reads graphs with Graphviz as WebAssembly, and says what is in them.
// Usage: node graphviz.mjs MODULE FILE; MODULE is the script of the package @hpcc-js/wasm-graphviz.
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const [module, file] = process.argv.slice(2);
const { Graphviz } = await import(pathToFileURL(module));
const graphviz = await Graphviz.load();
const graph = JSON.parse(graphviz.layout(fs.readFileSync(file, "utf-8"), "dot_json", "nop"));
const objects = graph.objects ?? [];
const clusters = objects.filter((object) => object.name.startsWith("cluster"));
const nodes = objects.filter((object) => !object.name.startsWith("cluster"));
const names = Object.fromEntries(objects.map((object) => [object._gvid, object.name]));
const edges = (graph.edges ?? []).map((edge) => [names[edge.tail], names[edge.head]]);
const answer = { version: graphviz.version(), clusters: clusters.map((c) => c.label), nodes: nodes.map((n) => n.label), edges };
process.stdout.write(JSON.stringify(answer));
