// Runs SQL on a trace with Perfetto's trace processor, the WebAssembly build that its user interface uses.
// Usage: node trace_processor.mjs FOLDER TRACE < queries.json > answers.json
// FOLDER holds engine_bundle.js and the .wasm beside it; queries are strings, answers lists of rows.
import fs from "node:fs";
import path from "node:path";

const [folder, trace] = process.argv.slice(2);

// The engine is a worker: it takes a port, and answers the bytes that come through it.
function connect() {
  const local = (name) => fs.readFileSync(path.join(folder, path.basename(name)));
  const location = { href: "http://engine/" };
  const self = { location };
  class LocalRequest {
    open(method, name) {
      this.response = Uint8Array.from(local(name)).buffer;
    }
    send() {}
  }
  const log = { ...console, log: console.error, warn: console.error };
  const globals = { self, location, console: log, WorkerGlobalScope: Object, XMLHttpRequest: LocalRequest, process: undefined };
  new Function(...Object.keys(globals), local("engine_bundle.js").toString())(...Object.values(globals));
  const port = { postMessage: (bytes) => port.replies.push(Buffer.from(bytes)), replies: [] };
  self.onmessage({ data: port });
  return port;
}

// As much of protocol buffers as the requests and answers need.
function varint(value) {
  const bytes = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    if (rest < 128n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 127n) | 128);
  }
}

const number = (field, value) => Buffer.concat([varint(field << 3), varint(value)]);
const block = (field, bytes) => Buffer.concat([varint((field << 3) | 2), varint(bytes.length), bytes]);

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  varint() {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.bytes[this.at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asIntN(64, value);
    }
  }
  varints() {
    const all = [];
    while (this.at < this.bytes.length) all.push(this.varint());
    return all;
  }
  // Lists of the values of each field.
  fields() {
    const all = {};
    while (this.at < this.bytes.length) {
      const key = Number(this.varint());
      let value;
      if ((key & 7) === 0) value = this.varint();
      else {
        const length = (key & 7) === 1 ? 8 : (key & 7) === 5 ? 4 : Number(this.varint());
        value = this.bytes.subarray(this.at, this.at + length);
        this.at += length;
      }
      (all[key >> 3] ??= []).push(value);
    }
    return all;
  }
}

const fieldsOf = (bytes) => new Reader(bytes).fields();

// TraceProcessorRpc.TraceProcessorMethod
const [APPEND, FINALIZE, QUERY] = [1, 2, 3];
let sequence = 0;

function request(port, method, more) {
  const message = Buffer.concat([number(1, sequence++), number(2, method), ...more]);
  port.replies.length = 0;
  port.onmessage({ data: new Uint8Array(block(1, message)) });
  return port.replies.flatMap((reply) => fieldsOf(reply)[1]).map(fieldsOf);
}

function demandNone(errors, what) {
  for (const error of errors ?? []) {
    if (error.length > 0) throw new Error(`${what}: ${error.toString()}`);
  }
}

// QueryResult: columns, then batches of cells, whose values stand in one list a type.
function rows(messages) {
  const table = [];
  let columns = 0;
  for (const message of messages) {
    demandNone(message[5], "fatal");
    for (const bytes of message[203] ?? []) {
      const result = fieldsOf(bytes);
      demandNone(result[2], "query");
      columns ||= (result[1] ?? []).length;
      for (const batch of (result[3] ?? []).map(fieldsOf)) {
        const cells = (batch[1] ?? []).flatMap((packed) => [...packed]);
        const integers = (batch[2] ?? []).flatMap((packed) => new Reader(packed).varints());
        const floats = Buffer.concat(batch[3] ?? []);
        const strings = Buffer.concat(batch[5] ?? []).toString().split("\0");
        let at = 0;
        const next = [() => undefined, () => null, () => Number(integers.shift()), () => floats.readDoubleLE(8 * at++), () => strings.shift()];
        const values = cells.map((kind) => next[kind]());
        while (values.length > 0) table.push(values.splice(0, columns));
      }
    }
  }
  return table;
}

const port = connect();
// The module is instantiated at once; that it asks for its buffer is left to a promise.
await new Promise((done) => setTimeout(done));
for (const message of request(port, APPEND, [block(101, fs.readFileSync(trace))])) {
  for (const result of message[201] ?? []) demandNone(fieldsOf(result)[2], "the trace");
}
request(port, FINALIZE, []);
const queries = JSON.parse(fs.readFileSync(0, "utf-8"));
const answers = queries.map((query) => rows(request(port, QUERY, [block(103, block(1, Buffer.from(query)))])));
process.stdout.write(JSON.stringify(answers));
