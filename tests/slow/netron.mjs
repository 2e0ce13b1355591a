// Opens a file as Netron does, and says what it would show.
// Usage: node netron.mjs FOLDER FILE > answer.json
// FOLDER holds Netron's scripts as modules. The answer has the format and, of each graph, its name and the types of its nodes.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, file] = process.argv.slice(2);
const script = (name) => import(pathToFileURL(path.join(folder, `${name}.js`)));
const [{ BinaryStream }, view] = [await script("base"), await script("view")];

// What Netron asks of the program that it is in.
const host = {
  environment: () => undefined,
  require: (id) => script(path.basename(id)),
  exception: (error) => {
    throw error;
  },
};
const context = {
  identifier: path.basename(file),
  stream: new BinaryStream(fs.readFileSync(file)),
  entries: new Map(),
  tags: new Map(),
  require: host.require,
  asset: async (name) => fs.readFileSync(path.join(folder, name), "utf-8"),
  fetch: async (name) => new BinaryStream(fs.readFileSync(path.join(path.dirname(file), name))),
};
const model = await new view.ModelFactoryService(host).open(context);
const graphs = [...(model.modules ?? []), ...(model.functions ?? [])];
const shown = graphs.map((graph) => ({ name: graph.name, nodes: graph.nodes.map((node) => node.type.name) }));
process.stdout.write(JSON.stringify({ format: model.format, graphs: shown }));
