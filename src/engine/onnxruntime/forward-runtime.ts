/** Forward graphs over one set of weights, in this thread. */
import { totalmem } from "node:os";
import type * as ort from "onnxruntime-node";
import type { ValueId } from "../../graph/ir/ir.js";
import { transposable } from "../../graph/onnx/lower.js";
import type { ExtendProgram, LogitsProgram, ParamInfo } from "../../graph/programs/programs.js";
import { append, cacheFor, cacheShape, extendInputs, type Cache } from "../runtime/cache.js";
import type { BackendOptions, ExtendFeeds, ForwardRuntime } from "../runtime/runtime.js";
import { floats, intTensor, openSession, tensor, type Session } from "./session.js";

/** Weights of up to this share of the machine's memory are kept a second time, packed, while tokens come one by one. */
const PACKED_SHARE = 1 / 4;
/** Elements up to which an input is stored rather than fed: feeding has a price of its own. */
const SMALL = 1 << 16;

interface Weight {
  readonly data: Float32Array;
  /** Held as [in, out]. */
  readonly transposed: boolean;
}

/** A program, and what is made of it when it first runs. */
interface Known<P extends LogitsProgram | ExtendProgram> {
  readonly program: P;
  /** Of its parameters, those that it reads transposed. */
  readonly transposed: ReadonlySet<string>;
  readonly ids: ReadonlyMap<string, ValueId>;
  // A promise, so that two calls at once compile once.
  session?: Promise<Session> | undefined;
  /** Parameters that are fed, made once: a text asks for them once per token. */
  bound?: readonly ort.Tensor[] | undefined;
}

export function openForwardRuntime(options: BackendOptions): ForwardRuntime {
  const weights = new Map<string, Weight>();
  const programs = new Map<string, Known<LogitsProgram>>();
  const extensions = new Map<string, Known<ExtendProgram>>();
  /** The one program that holds packed weights. */
  let packed: Known<ExtendProgram> | undefined;
  let cache: Cache<Float32Array> | undefined;

  const known = <P extends LogitsProgram | ExtendProgram>(
    among: Map<string, Known<P>>,
    name: string,
    program: P,
  ): Known<P> => {
    const found = among.get(name);
    if (found !== undefined) return found;
    const { graph, params } = program;
    const ids = new Map(params.map(({ key }, i) => [key, graph.inputs[graph.inputs.length - params.length + i]!]));
    const free = transposable(graph);
    const made: Known<P> = {
      program,
      ids,
      transposed: new Set([...ids].flatMap(([key, id]) => (free.has(id) ? [key] : []))),
    };
    among.set(name, made);
    return made;
  };
  /** A weight the way a program reads it. It is in memory in one way only: all programs of a model read it alike. */
  const held = ({ key, shape }: ParamInfo, transposed: boolean): Float32Array => {
    const weight = weights.get(key);
    if (weight === undefined) throw new Error(`weight ${key} was never written`);
    if (weight.transposed === transposed) return weight.data;
    const [rows, columns] = shape as [number, number];
    const data = transposed ? transpose(weight.data, rows, columns) : transpose(weight.data, columns, rows);
    weights.set(key, { data, transposed });
    return data;
  };
  const unpack = async (): Promise<void> => {
    const session = packed?.session;
    if (packed !== undefined) [packed.session, packed.bound, packed] = [undefined, undefined, undefined];
    await (await session?.catch(() => null))?.close();
  };
  const opened = async (
    of: Known<LogitsProgram | ExtendProgram>,
    stored: readonly ParamInfo[] = [],
  ): Promise<readonly [Session, readonly ort.Tensor[]]> => {
    const { program, ids, transposed } = of;
    const inside = new Set(stored.map(({ key }) => key));
    of.session ??= openSession(program.graph, {
      // Reading prompts and going on from them are sessions that take turns.
      ...options,
      spin: "run",
      transposed: new Set([...transposed].map((key) => ids.get(key)!)),
      stored: new Map(stored.map((param) => [ids.get(param.key)!, held(param, transposed.has(param.key))])),
    });
    of.bound ??= program.params
      .filter(({ key }) => !inside.has(key))
      .map((param) => {
        const { key, shape } = param;
        return tensor(held(param, transposed.has(key)), transposed.has(key) ? shape.toReversed() : shape);
      });
    return [await of.session, of.bound];
  };
  const packing = async (of: Known<ExtendProgram>): Promise<readonly [Session, readonly ort.Tensor[]]> => {
    const bytes = [...weights.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
    if (of.program.shape.tokens > 1 || bytes > totalmem() * PACKED_SHARE) return opened(of);
    if (packed !== of) await unpack();
    packed = of;
    return opened(
      of,
      of.program.params.filter(({ key, shape }) => of.transposed.has(key) || shape.reduce((a, b) => a * b, 1) <= SMALL),
    );
  };

  return {
    async write(key, data) {
      weights.set(key, { data, transposed: false });
      for (const each of [...programs.values(), ...extensions.values()]) each.bound = undefined;
      await unpack();
    },
    async run(name: string, program: LogitsProgram, feeds: readonly Int32Array[]) {
      const [session, params] = await opened(known(programs, name, program));
      const [logits] = await session.run([...feeds.map(intTensor), ...params], []);
      return floats(logits!);
    },
    async extend(name: string, given: ExtendProgram, feeds: ExtendFeeds) {
      const of = known(extensions, name, given);
      const { program } = of;
      const [session, params] = await packing(of);
      const started = performance.now();
      const past = cacheFor(Float32Array, cache, program, feeds.capacity);
      cache = past;
      const ints = extendInputs(program, feeds, past.capacity).map(intTensor);
      const cached =
        program.shape.capacity === 0
          ? []
          : past.data.map((data, i): ort.Tensor => tensor(data, cacheShape(program, i, past.capacity)));
      const [logits, ...present] = await session.run([...ints, ...cached, ...params], []);
      append(past, program, present.map(floats), feeds);
      return { logits: floats(logits!), ms: performance.now() - started };
    },
    async close() {
      for (const { session } of [...programs.values(), ...extensions.values()])
        await (await session?.catch(() => null))?.close();
      programs.clear();
      extensions.clear();
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
