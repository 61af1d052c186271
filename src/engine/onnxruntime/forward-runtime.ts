/** Forward graphs over one set of weights, in this thread. */
import { totalmem } from "node:os";
import type * as ort from "onnxruntime-node";
import { at, entryOf } from "../../base/at.js";
import { elements, matrixSizes, type ValueId } from "../../graph/ir/ir.js";
import { transposable } from "../../graph/onnx/lower.js";
import type { ExtendProgram, LogitsProgram, ParamInfo } from "../../graph/programs/programs.js";
import {
  append,
  cacheFor,
  cacheShape,
  extendInputs,
  presentFrom,
  repeated,
  routingOf,
  type Cache,
} from "../runtime/cache.js";
import type { BackendOptions, ExtendFeeds, ForwardRuntime } from "../runtime/runtime.js";
import { floats, intTensor, numbers, openSession, tensor, type Session } from "./session.js";

/** Weights of up to this share of the machine's memory are kept a second time, packed, while tokens come one by one. */
const PACKED_SHARE = 1 / 4;
/** Sessions of new tokens that stay open: each keeps the memory of its activations. */
const MOST_SESSIONS = 8;
/** Elements up to which an input is stored rather than fed: feeding has a price of its own. */
const SMALL = 1 << 16;

interface Weight {
  readonly data: Float32Array;
  /** Held as [in, out]. */
  readonly transposed: boolean;
}

/** A program, and what is made of it when it first runs. */
interface OpenProgram<P extends LogitsProgram | ExtendProgram> {
  readonly program: P;
  /** Keys of the parameters that it reads transposed. */
  readonly transposed: ReadonlySet<string>;
  readonly ids: ReadonlyMap<string, ValueId>;
  // A promise, so that two calls at once compile once.
  session?: Promise<Session> | undefined;
  /** Parameters that are fed, made once: a text asks for them once per token. */
  bound?: readonly ort.Tensor[] | undefined;
}

/** Opens a runtime without weights; every weight of a program is to be written before it runs. */
export function openForwardRuntime(options: BackendOptions): ForwardRuntime {
  const weights = new Map<string, Weight>();
  const programs = new Map<string, OpenProgram<LogitsProgram>>();
  const extensions = new Map<string, OpenProgram<ExtendProgram>>();
  /** Programs of new tokens whose sessions are open, the last one used last. */
  const recent = new Set<OpenProgram<ExtendProgram>>();
  /** The one program that holds packed weights. */
  let packed: OpenProgram<ExtendProgram> | undefined;
  let cache: Cache<Float32Array> | undefined;

  const programOf = <P extends LogitsProgram | ExtendProgram>(
    among: Map<string, OpenProgram<P>>,
    name: string,
    program: P,
  ): OpenProgram<P> => {
    const existing = among.get(name);
    if (existing !== undefined) return existing;
    const { graph, params } = program;
    const ids = new Map(params.map(({ key }, i) => [key, at(graph.inputs, graph.inputs.length - params.length + i)]));
    const free = transposable(graph);
    const opened: OpenProgram<P> = {
      program,
      ids,
      transposed: new Set([...ids].flatMap(([key, id]) => (free.has(id) ? [key] : []))),
    };
    among.set(name, opened);
    return opened;
  };
  /** A weight the way a program reads it. It is in memory in one way only: all programs of a model read it alike. */
  const weightFor = ({ key, shape }: ParamInfo, transposed: boolean): Float32Array => {
    const weight = weights.get(key);
    if (weight === undefined) throw new Error(`weight ${key} was never written`);
    if (weight.transposed === transposed) return weight.data;
    const [rows, columns] = matrixSizes({ shape });
    const data = transposed ? transpose(weight.data, rows, columns) : transpose(weight.data, columns, rows);
    weights.set(key, { data, transposed });
    return data;
  };
  /** Closes the session that holds packed weights. */
  const unpack = async (): Promise<void> => {
    const session = packed?.session;
    if (packed !== undefined) [packed.session, packed.bound, packed] = [undefined, undefined, undefined];
    await (await session?.catch(() => null))?.close();
  };
  /** A program's session, and the parameters that it is fed. */
  const sessionOf = async (
    open: OpenProgram<LogitsProgram | ExtendProgram>,
    stored: readonly ParamInfo[] = [],
  ): Promise<readonly [Session, readonly ort.Tensor[]]> => {
    const { program, ids, transposed } = open;
    const inside = new Set(stored.map(({ key }) => key));
    open.session ??= openSession(program.graph, {
      // Sessions that read prompts and sessions that continue them take turns.
      ...options,
      spin: "run",
      transposed: new Set([...transposed].map((key) => entryOf(ids, key))),
      stored: new Map(stored.map((param) => [entryOf(ids, param.key), weightFor(param, transposed.has(param.key))])),
    });
    open.bound ??= program.params
      .filter(({ key }) => !inside.has(key))
      .map((param) => {
        const { key, shape } = param;
        return tensor(weightFor(param, transposed.has(key)), transposed.has(key) ? shape.toReversed() : shape);
      });
    return [await open.session, open.bound];
  };
  /** The same for new tokens: a program of single tokens stores its weights where memory allows. */
  const packedSessionOf = async (
    open: OpenProgram<ExtendProgram>,
  ): Promise<readonly [Session, readonly ort.Tensor[]]> => {
    const { shape, params } = open.program;
    const bytes = [...weights.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
    if (shape.tokens > 1 || bytes > totalmem() * PACKED_SHARE) return sessionOf(open);
    if (packed !== open) await unpack();
    packed = open;
    const worthStoring = params.filter((param) => open.transposed.has(param.key) || elements(param.shape) <= SMALL);
    return sessionOf(open, worthStoring);
  };

  /** Notes a use of a program; the sessions of those that were used longest ago close. */
  const noteUse = async (open: OpenProgram<ExtendProgram>): Promise<void> => {
    recent.delete(open);
    recent.add(open);
    const [oldest] = recent;
    if (recent.size <= MOST_SESSIONS || oldest === undefined) return;
    recent.delete(oldest);
    const { session } = oldest;
    if (oldest === packed) packed = undefined;
    [oldest.session, oldest.bound] = [undefined, undefined];
    await (await session?.catch(() => null))?.close();
  };

  return {
    async write(key, data) {
      weights.set(key, { data, transposed: false });
      for (const each of [...programs.values(), ...extensions.values()]) each.bound = undefined;
      await unpack();
    },
    async run(name: string, program: LogitsProgram, feeds: readonly Int32Array[]) {
      const [session, params] = await sessionOf(programOf(programs, name, program));
      const outputs = await session.run([...feeds.map((feed) => intTensor(feed)), ...params], []);
      return floats(at(outputs, 0));
    },
    async extend(name: string, sent: ExtendProgram, feeds: ExtendFeeds) {
      const open = programOf(extensions, name, sent);
      const { program } = open;
      await noteUse(open);
      const [session, params] = await packedSessionOf(open);
      const started = performance.now();
      const past = cacheFor(Float32Array, cache, program, feeds.capacity);
      cache = past;
      const ints = extendInputs(program, feeds, past.capacity).map((feed) => intTensor(feed));
      const cached =
        program.shape.capacity === 0
          ? []
          : past.data.map((data, i): ort.Tensor => tensor(data, cacheShape(program, i, past.capacity)));
      const outputs = await session.run([...ints, ...cached, ...params], []);
      append(past, program, outputs.slice(presentFrom(program)).map(floats), feeds);
      const routing = routingOf(
        program,
        (output) => Int32Array.from(numbers(at(outputs, output))),
        (output) => floats(at(outputs, output)),
      );
      return { output: floats(at(outputs, 0)), routing, ms: performance.now() - started };
    },
    repeatCache(rows) {
      if (cache === undefined) return Promise.reject(new Error("there is no cache to repeat"));
      cache = repeated(Float32Array, cache, rows);
      return Promise.resolve();
    },
    async close() {
      for (const { session } of [...programs.values(), ...extensions.values()])
        await (await session?.catch(() => null))?.close();
      programs.clear();
      extensions.clear();
      recent.clear();
      packed = undefined;
      cache = undefined;
      weights.clear();
    },
  };
}

/** [rows, columns] -> [columns, rows], in tiles that stay in the cache. */
function transpose(data: Float32Array, rows: number, columns: number): Float32Array {
  const tile = 32;
  const out = new Float32Array(data.length);
  for (let top = 0; top < rows; top += tile) {
    for (let left = 0; left < columns; left += tile) {
      for (let row = top; row < Math.min(rows, top + tile); row++) {
        for (let column = left; column < Math.min(columns, left + tile); column++)
          out[column * rows + row] = data[row * columns + column]!;
      }
    }
  }
  return out;
}
