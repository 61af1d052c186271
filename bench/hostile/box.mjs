/**
 * Where a case lives: a folder of its own with what it needs, and a second one for homes and caches, which commands may
 * write to.
 */
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  closeSync,
  ftruncateSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { encodeSafetensors } from "../../dist/files/formats/safetensors.js";

const golden = fileURLToPath(new URL("../../test/golden/", import.meta.url));
const words = ["whale", "ship", "café", "sea", "naïve", "captain", "harpoon", "日本", "wind", "🐋"];
const prose = Array.from(
  { length: 240 },
  (_, n) => `${n} ${Array.from({ length: 12 }, (_, i) => words[(n * n + 3 * i + n * i) % words.length]).join(" ")}.`,
).join("\n");
const losses = [
  "N,D,loss",
  ...[1e7, 3e7, 1e8, 3e8, 1e9].flatMap((N) =>
    [1e9, 3e9, 1e10, 3e10].map((D) => `${N},${D},${1.7 + 400 / N ** 0.34 + 410 / D ** 0.28}`),
  ),
].join("\n");

/**
 * Of all pairs of rows and columns the first column with every row, and one other column for each row in turn: what is
 * left out runs with --full alone.
 */
export const rotated = (row, column, columns) => column !== 0 && column !== 1 + (row % (columns - 1));

export const trainFile = (changes = {}) => ({
  out: "run",
  threads: 1,
  model: { hidden: 16, layers: 1, heads: 2, inner: 32, maxPositions: 64 },
  tokenizer: { vocab: 300 },
  text: { files: ["text.txt"], heldOut: 0.1 },
  evaluation: { tokens: 200 },
  ...changes,
  training: { steps: 5, batch: 2, sequence: 16, lr: { peak: 0.003 }, evalEvery: 5, saveEvery: 5, ...changes.training },
});

export const studyFile = (changes = {}) => {
  const { training, ...rest } = trainFile();
  delete rest.out;
  return {
    name: "small",
    seeds: [0],
    ...rest,
    pretrain: training,
    continue: training,
    arms: { dense: { kind: "dense" }, moe: { kind: "upcycled", recipe: "E2G1T1" } },
    ...changes,
  };
};

/** Bytes of a safetensors file with this header and so many bytes of data behind it. */
export function safetensors(header, data = 0, length) {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(length ?? json.length));
  return Buffer.concat([size, json, Buffer.alloc(data)]);
}

/**
 * A file in the place of which something else lies, that programs which open it wait for, read for ever, or fail at.
 */
export const strange = ["fifo", "folder", "dangling link", "link to itself", "zero device", "sparse", "empty"];

/**
 * Models that all cases copy: one trained for five steps, and what convert makes of it. Both by the build under test.
 */
export async function makeFixtures(dir, upcycle) {
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "text.txt"), prose);
  writeFileSync(join(dir, "f.csv"), losses);
  writeFileSync(join(dir, "train.yaml"), JSON.stringify(trainFile()));
  await upcycle(["train", "train.yaml"], dir);
  await upcycle(["convert", "run/last", "--recipe", "E4G1T2", "--out", "moe", "--no-report"], dir);
  cpSync(join(dir, "run", "last"), join(dir, "dense"), { recursive: true });
  for (const file of ["optimizer.safetensors", "training.json"]) rmSync(join(dir, "dense", file), { force: true });
  const ids = Int32Array.from({ length: 24 }, (_, i) => (i * 37) % 90);
  writeFileSync(
    join(dir, "ids.safetensors"),
    encodeSafetensors([{ name: "input_ids", dtype: "I32", shape: [2, 12], bytes: new Uint8Array(ids.buffer) }]),
  );
}

export class Box {
  closers = [];

  constructor(dir, side, fixtures) {
    this.dir = dir;
    this.side = side;
    this.fixtures = fixtures;
    mkdirSync(dir, { recursive: true });
    mkdirSync(join(side, "home"), { recursive: true });
  }

  at(path) {
    return join(this.dir, path);
  }

  /**
   * A copy of a fixture ("dense", "moe", "text.txt", "f.csv", "ids.safetensors", "run") or of a golden model
   * ("golden/dense/llama").
   */
  copy(what, name = what) {
    const from = what.startsWith("golden/") ? join(golden, what.slice(7)) : join(this.fixtures, what);
    mkdirSync(dirname(this.at(name)), { recursive: true });
    cpSync(from, this.at(name), { recursive: true });
    return name;
  }

  file(name, content) {
    mkdirSync(dirname(this.at(name)), { recursive: true });
    writeFileSync(
      this.at(name),
      typeof content === "string" || content instanceof Uint8Array ? content : JSON.stringify(content),
    );
    return name;
  }

  read(name) {
    return readFileSync(this.at(name), "utf8");
  }

  bytes(name) {
    return readFileSync(this.at(name));
  }

  has(name) {
    return existsSync(resolve(this.dir, name));
  }

  /** Changes a JSON file. */
  edit(name, change) {
    const value = JSON.parse(this.read(name));
    return this.file(name, change(value) ?? value);
  }

  /** One file for many cases: made once, then linked. */
  shared(name, key, make) {
    const path = join(this.fixtures, key);
    if (!existsSync(path)) writeFileSync(path, make());
    rmSync(this.at(name), { force: true });
    mkdirSync(dirname(this.at(name)), { recursive: true });
    linkSync(path, this.at(name));
    return name;
  }

  /** Puts something strange in the place of a file. */
  put(name, kind) {
    const path = this.at(name);
    rmSync(path, { recursive: true, force: true });
    mkdirSync(dirname(path), { recursive: true });
    switch (kind) {
      case "fifo":
        execFileSync("mkfifo", [path]);
        break;
      case "folder":
        mkdirSync(path);
        break;
      case "dangling link":
        symlinkSync("nowhere", path);
        break;
      case "link to itself":
        symlinkSync(path, path);
        break;
      case "zero device":
        symlinkSync("/dev/zero", path);
        break;
      case "empty":
        writeFileSync(path, "");
        break;
      case "sparse": {
        const handle = openSync(path, "w");
        ftruncateSync(handle, 64 * 2 ** 30);
        closeSync(handle);
        break;
      }
      default:
        throw new Error(kind);
    }
    return name;
  }

  /** A web server on this machine that ends with the case: `answer(request, response)`. Returns its address. */
  async serve(answer) {
    const server = createServer((request, response) => {
      response.on("error", () => undefined);
      answer(request, response);
    });
    return this.listen(server);
  }

  /** A server that does with each connection what `take(socket)` does. */
  async serveRaw(take) {
    return this.listen(
      createTcpServer((socket) => {
        socket.on("error", () => undefined);
        take(socket);
      }),
    );
  }

  async listen(server) {
    const open = new Set();
    server.on("connection", (socket) => {
      open.add(socket);
      socket.on("close", () => open.delete(socket));
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    this.closers.push(() => {
      for (const socket of open) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    });
    return `http://127.0.0.1:${server.address().port}`;
  }

  async close() {
    for (const close of this.closers) await close();
    // Read-only folders are made writable first.
    execFileSync("chmod", ["-R", "u+rwX", this.dir, this.side], { stdio: "ignore" });
    // By rm, which can remove names that are no UTF-8.
    execFileSync("rm", ["-rf", this.dir, this.side]);
  }
}
