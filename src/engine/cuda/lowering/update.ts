/**
 * The update of a step as a launch list: the gradients' norm, the verdict on them, AdamW, Muon and averages (see
 * optimizer.cu). What changes from step to step lies in memory that the launches read.
 */
import type { Graph } from "../../../graph/ir/ir.js";
import { MUON_EPS, newtonSchulz } from "../../optimizer/muon.js";
import { WORD, bytesPer, float, int, long, nothing } from "./arguments.js";
import type { KernelCall } from "./context.js";
import type { Access, Argument, Buffer, BufferId, Launch, LaunchList } from "./launches.js";
import { lowerToLaunches } from "./lower.js";
import { planMemory } from "./memory.js";

/** Elements of a chunk, for which a block of 256 threads works. */
export const CHUNK = 4096;
/** Bytes of a chunk's entry. */
export const CHUNK_BYTES = 48;
/** Bytes of a step's settings: 13 numbers in float64. */
export const SETTINGS_BYTES = 13 * 8;
/** Bytes of a step's verdict: four numbers in float64. */
export const VERDICT_BYTES = 4 * 8;
/** Bytes of the rates of one parameter. */
export const RATES_BYTES = 8;

/** Memory that an update works on, in the order of the list's inputs. */
export const updateInputs = [
  "chunks",
  "rates",
  "settings",
  "verdict",
  "losses",
  "weights",
  "gradients",
  "moments1",
  "moments2",
  "averages",
  "halves",
] as const;
/** What the update of a step is lowered from. */
export type UpdateInput = (typeof updateInputs)[number];

/** A matrix that Muon moves; offsets in elements. */
export interface MuonMatrix {
  readonly parameter: number;
  readonly rows: number;
  readonly columns: number;
  readonly weight: number;
  readonly gradient: number;
  readonly moment: number;
  readonly average: number | null;
  /** Whether the weights are kept as bfloat16, too: where the weight lies, in elements of it. */
  readonly half: boolean;
  /** Factor on the learning rate. */
  readonly scale: number;
}

/** The launches of a step's update, and where their settings and verdict lie. */
export interface UpdatePlan {
  /** Bytes of each input. */
  readonly bytes: Readonly<Record<UpdateInput, number>>;
  /** Chunks of all trained parameters; those of AdamW come first. */
  readonly chunks: number;
  readonly adamwChunks: number;
  /** Elements from one micro-batch's loss to the next's. */
  readonly lossStride: number;
  readonly muon: readonly MuonMatrix[];
}

/** Blocks of Muon's passes over a matrix. */
const MUON_BLOCKS = 256;

class UpdateBuilder {
  readonly buffers: Buffer[];
  readonly launches: Launch[] = [];

  constructor(bytes: UpdatePlan["bytes"]) {
    this.buffers = updateInputs.map((name, index) => ({ bytes: bytes[name], home: { kind: "input", index } }));
  }

  scratch(elements: number): BufferId {
    return this.buffers.push({ bytes: elements * WORD, home: { kind: "arena" } }) - 1;
  }

  kernel({ block = 256, shared = 0, flops = 0, bytes = 0, real = "f32", ...call }: Omit<KernelCall, "module">): void {
    this.launches.push({ kind: "kernel", module: "optimizer", real, block, shared, flops, bytes, ...call });
  }

  /** Appends another list, whose inputs and outputs are the given buffers. */
  append(list: LaunchList, inputs: readonly BufferId[], outputs: readonly BufferId[]): void {
    const ids = list.buffers.map((buffer): BufferId => {
      if (buffer.home.kind === "input") return inputs[buffer.home.index] ?? -1;
      if (buffer.home.kind === "output") return outputs[buffer.home.index] ?? -1;
      return this.buffers.push(buffer) - 1;
    });
    // Every buffer of the list has a place in the table above.
    const moved = (id: BufferId): BufferId => ids[id]!;
    this.launches.push(...list.launches.map((launch) => renamed(launch, moved)));
  }
}

function renamed(launch: Launch, moved: (id: BufferId) => BufferId): Launch {
  if (launch.kind === "product") {
    const { a, b, addend, out } = launch;
    const operand = ({ buffer, offset }: typeof a): typeof a => ({ buffer: moved(buffer), offset });
    return { ...launch, a: operand(a), b: operand(b), addend: addend && operand(addend), out: operand(out) };
  }
  const argument = (each: Argument): Argument => {
    if (each.kind === "pointer") return { ...each, buffer: moved(each.buffer) };
    return each.kind === "table" ? { ...each, buffers: each.buffers.map(moved) } : each;
  };
  return { ...launch, arguments: launch.arguments.map(argument) };
}

/** A pointer to an input, from an element on. */
const pointer = (name: UpdateInput, access: Access, element = 0, bytes = WORD): Argument => ({
  kind: "pointer",
  buffer: updateInputs.indexOf(name),
  access,
  offset: element * bytes,
});
const scratchPointer = (buffer: BufferId, access: Access): Argument => ({ kind: "pointer", buffer, access });

function muonLaunches(b: UpdateBuilder, matrix: MuonMatrix, iteration: (rows: number, columns: number) => LaunchList) {
  const { rows, columns, parameter, weight, gradient, moment, average, half, scale } = matrix;
  const n = rows * columns;
  const [u, direction, parts] = [b.scratch(n), b.scratch(n), b.scratch(MUON_BLOCKS)];
  const [settings, verdict] = [pointer("settings", "read"), pointer("verdict", "read")];
  const grid = [MUON_BLOCKS, 1, 1] as const;
  b.kernel({
    kernel: "muonMomentum",
    grid,
    bytes: 16 * n,
    flops: 6 * n,
    arguments: [
      pointer("gradients", "read", gradient),
      pointer("moments1", "update", moment),
      scratchPointer(u, "write"),
      scratchPointer(parts, "write"),
      settings,
      verdict,
      long(n),
    ],
  });
  b.kernel({
    kernel: "muonNormalise",
    grid,
    bytes: 8 * n,
    flops: n,
    arguments: [scratchPointer(u, "update"), scratchPointer(parts, "read"), int(MUON_BLOCKS), long(n), float(MUON_EPS)],
  });
  b.append(iteration(rows, columns), [u], [direction]);
  b.kernel({
    kernel: "muonApply",
    grid,
    bytes: 12 * n,
    flops: 4 * n,
    arguments: [
      pointer("weights", "update", weight),
      scratchPointer(direction, "read"),
      average === null ? nothing : pointer("averages", "update", average),
      half ? pointer("halves", "write", weight, bytesPer.bf16) : nothing,
      pointer("rates", "read"),
      settings,
      verdict,
      int(parameter),
      float(scale),
      long(n),
    ],
  });
}

/** Newton-Schulz iterations, lowered once for each size. */
function iterations(): (rows: number, columns: number) => LaunchList {
  const known = new Map<string, LaunchList>();
  return (rows, columns) => {
    const key = `${rows}x${columns}`;
    const graph: Graph = newtonSchulz(rows, columns);
    const list = known.get(key) ?? lowerToLaunches(graph);
    known.set(key, list);
    return list;
  };
}

/** The launches of an update. */
export function lowerUpdate(plan: UpdatePlan): LaunchList {
  const b = new UpdateBuilder(plan.bytes);
  const parts = b.scratch(plan.chunks);
  const [settings, chunks] = [pointer("settings", "read"), pointer("chunks", "read")];
  b.kernel({
    kernel: "chunkSquares",
    grid: [plan.chunks, 1, 1],
    bytes: plan.bytes.gradients,
    flops: plan.bytes.gradients / 2,
    arguments: [chunks, pointer("gradients", "read"), scratchPointer(parts, "write")],
  });
  b.kernel({
    kernel: "judge",
    grid: [1, 1, 1],
    block: 1024,
    bytes: plan.chunks * WORD,
    arguments: [
      scratchPointer(parts, "read"),
      int(plan.chunks),
      pointer("losses", "read"),
      int(plan.lossStride),
      settings,
      pointer("verdict", "write"),
    ],
  });
  if (plan.adamwChunks > 0) {
    const elements = plan.adamwChunks * CHUNK;
    b.kernel({
      kernel: "adamw",
      grid: [plan.adamwChunks, 1, 1],
      bytes: (28 + (plan.bytes.halves === 0 ? 0 : bytesPer.bf16)) * elements,
      flops: 14 * elements,
      arguments: [
        chunks,
        pointer("rates", "read"),
        settings,
        pointer("verdict", "read"),
        pointer("weights", "update"),
        pointer("gradients", "read"),
        pointer("moments1", "update"),
        pointer("moments2", "update"),
        pointer("averages", "update"),
        plan.bytes.halves === 0 ? nothing : pointer("halves", "write"),
      ],
    });
  }
  const iteration = iterations();
  for (const matrix of plan.muon) muonLaunches(b, matrix, iteration);
  return { buffers: b.buffers, launches: b.launches, ...planMemory(b.buffers, b.launches) };
}
