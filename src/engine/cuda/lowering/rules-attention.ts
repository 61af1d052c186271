/** Attention (see attention.cu). N = B batch x S sequence tokens, D size of a head, V size of a value head. */
import {
  attentionExtras,
  cachedExtras,
  type AttentionAttrs,
  type Node,
  type NodeOf,
  type ValueId,
} from "../../../graph/ir/ir.js";
import {
  EIGHT,
  blocksFor,
  bytesPer,
  float,
  int,
  nothing,
  reads,
  readsOrNull,
  tensorMaps,
  viewMap,
  viewed,
  writes,
  type View,
} from "./arguments.js";
import { useKey, type Context } from "./context.js";
import { isHopper } from "./options.js";
import { tiledAttention } from "./tiled-attention.js";
import type { Argument, BufferId, KernelModule, Storage } from "./launches.js";

/** Warps of a block, each for a row, of sums over the output. */
const WARPS = 8;
const LANES = 32;
/** Elements of a head that a warp can hold. */
const MOST_HEAD = 256;

/** A query's pairs with keys, over the whole batch: what attention's products are proportional to. */
function pairsOf({ batch, sequence, heads, window }: AttentionAttrs): number {
  const width = Math.min(window ?? sequence, sequence);
  return batch * heads * (width * sequence - (width * (width - 1)) / 2);
}

function checkHeads({ headDim, valueDim }: AttentionAttrs): void {
  if (Math.max(headDim, valueDim) > MOST_HEAD)
    throw new Error(`heads of ${Math.max(headDim, valueDim)} elements, the CUDA backend takes up to ${MOST_HEAD}`);
}

/** S, heads, kvHeads, D, V, the cache's capacity for kernels that take one, scale, window, cap */
const sizes = (attrs: AttentionAttrs & { readonly capacity?: number }) => [
  ...[attrs.sequence, attrs.heads, attrs.kvHeads, attrs.headDim, attrs.valueDim].map(int),
  ...(attrs.capacity === undefined ? [] : [int(attrs.capacity)]),
  float(attrs.scale),
  int(attrs.window ?? 0),
  float(attrs.softcap ?? 0),
];

/** Queries or keys of a block on tensor cores, and its threads. */
const FLASH_ROWS = 64;
const FLASH_THREADS = 128;
const flashHeads: readonly number[] = [64, 128];

/** Whether the kernels of flash.cu take this attention: bfloat16, heads and value heads of one usual size. */
const takesFlash = ({ headDim, valueDim }: AttentionAttrs, real: Storage): boolean =>
  real === "bf16" && headDim === valueDim && flashHeads.includes(headDim);

/** The end of a kernel's name: heads' size, and whether scores are capped. */
const flashName = ({ headDim, softcap }: AttentionAttrs): string => `${headDim}${softcap === null ? "" : "Capped"}`;

/** The module of flash.cu's kernels for these heads. */
const flashModule = ({ headDim, softcap }: AttentionAttrs): KernelModule =>
  `flash-${headDim === 64 ? 64 : 128}${softcap === null ? "" : "-capped"}`;

/** The module of flash-hopper.cu's kernels for these heads. */
const hopperModule = ({ headDim }: AttentionAttrs): KernelModule => `flash-hopper-${headDim === 64 ? 64 : 128}`;

/** S, heads, kvHeads, scale, window, cap */
const flashSizes = ({ sequence, heads, kvHeads, scale, window, softcap }: AttentionAttrs) => [
  ...[sequence, heads, kvHeads].map(int),
  float(scale),
  int(window ?? 0),
  float(softcap ?? 0),
];

/** Bytes of so many tiles of a head's rows. */
const tiles = (count: number, { headDim }: AttentionAttrs): number => count * FLASH_ROWS * headDim * 2;

/** Tiles in flight in each kernel of flash-hopper.cu, by heads' size. */
const hopperStages: Readonly<Record<number, { readonly forward: number; readonly gradient: number }>> = {
  64: { forward: 2, gradient: 3 },
  128: { forward: 2, gradient: 2 },
};
const stagesOf = ({ headDim }: AttentionAttrs) => hopperStages[headDim] ?? { forward: 2, gradient: 2 };
/** Bytes of logs and dots beside a tile, and of barriers. */
const NUMBERS = 1024;
const BARRIERS = 64;

/** Whether the kernels of flash-hopper.cu take this attention. */
const takesHopper = (c: Context, attrs: AttentionAttrs, real: Storage): boolean =>
  isHopper(c.options.chip) && takesFlash(attrs, real) && attrs.softcap === null;

/** Whether a node is attention, or its gradient, whose queries, keys and values may be rows that lie apart. */
export const readsRowsApart = (c: Context, node: Node): boolean =>
  (node.prim === "attention" || node.prim === "attentionGrad") && takesHopper(c, node.attrs, "bf16");

/** Bytes of so many values of all heads and of heads of keys. */
const rowBytes = (attrs: AttentionAttrs, ofHeads: number, ofKvHeads: number): number =>
  bytesPer.bf16 * attrs.batch * attrs.sequence * attrs.headDim * (ofHeads * attrs.heads + ofKvHeads * attrs.kvHeads);

/** Rows of a value as tiles of a head. */
function headMap(c: Context, id: ValueId): Argument {
  const [rows, size] = c.rowsOf(id);
  const view = c.viewOf(id, "bf16");
  const taken = [view.first, view.stride].every((elements) => elements % EIGHT === 0);
  return taken ? viewMap(view, [rows, size], FLASH_ROWS) : tensorMaps([c.as(id, "bf16")], [rows, size], FLASH_ROWS);
}

/** The gradients of queries, keys and values by flash-hopper.cu. */
function hopperGradients(
  c: Context,
  attrs: AttentionAttrs,
  [q, k, v, dout]: readonly [ValueId, ValueId, ValueId, ValueId],
  { out, lse, segmentIds }: { readonly out: BufferId; readonly lse: BufferId; readonly segmentIds: ValueId | null },
  [dq, dk, dv]: readonly [ValueId, ValueId, ValueId],
): void {
  const { batch, sequence, heads, kvHeads, headDim, scale, window } = attrs;
  const padded = blocksFor(sequence, FLASH_ROWS) * FLASH_ROWS;
  const stats = c.scratch(2 * batch * heads * padded);
  const maps = [q, k, v, dout].map((id) => headMap(c, id));
  const sizes = [...[sequence, heads, kvHeads].map(int), float(scale), int(window ?? 0), int(padded)];
  const [toQ, toK, toV] = [dq, dk, dv].map((id) => c.defineRows(id, [], "bf16")) as [View, View, View];
  const segments = orNull(c, segmentIds);
  const grad = reads(c.as(dout, "bf16"));
  const common = { module: hopperModule(attrs), real: "bf16", block: FLASH_THREADS } as const;
  const blocks = blocksFor(sequence, FLASH_ROWS);
  const stages = stagesOf(attrs).gradient;
  c.kernel({
    ...common,
    kernel: `flashGradQ${headDim}`,
    grid: [blocks, heads, batch],
    shared: tiles(2 + 2 * stages, attrs) + BARRIERS,
    flops: 6 * pairsOf(attrs) * headDim,
    bytes: rowBytes(attrs, 4, 2),
    arguments: [
      ...maps,
      segments,
      reads(out),
      grad,
      reads(lse),
      writes(stats),
      viewed(toQ, "write", "bf16"),
      ...sizes,
      int(toQ.stride),
    ],
  });
  c.kernel({
    ...common,
    kernel: `flashGradKV${headDim}`,
    grid: [blocks, kvHeads, batch],
    shared: tiles(2 + 2 * stages, attrs) + stages * NUMBERS + BARRIERS,
    flops: 8 * pairsOf(attrs) * headDim,
    bytes: rowBytes(attrs, 2, 4),
    arguments: [
      ...maps,
      segments,
      reads(stats),
      ...[toK, toV].map((to) => viewed(to, "write", "bf16")),
      ...sizes,
      ...[toK, toV].map(({ stride }) => int(stride)),
    ],
  });
}

interface Extras {
  readonly sinks: ValueId | null;
  readonly segmentIds: ValueId | null;
}

const orNull = (c: Context, id: ValueId | null) => readsOrNull(id === null ? null : c.of(id));

/** Launches the forward pass; `lse` gets the logs of the softmax's denominators. */
function forward(
  c: Context,
  attrs: AttentionAttrs,
  [q, k, v]: readonly [ValueId, ValueId, ValueId, ...ValueId[]],
  extras: Extras,
  to: { readonly out: BufferId; readonly lse: BufferId | null; readonly real: Storage },
): void {
  const { batch, sequence, heads, kvHeads, headDim, valueDim, scale, window } = attrs;
  if (takesHopper(c, attrs, to.real)) {
    c.kernel({
      module: hopperModule(attrs),
      kernel: `flash${headDim}`,
      real: "bf16",
      grid: [blocksFor(sequence, FLASH_ROWS), heads, batch],
      block: FLASH_THREADS,
      shared: tiles(1 + 2 * stagesOf(attrs).forward, attrs) + BARRIERS,
      flops: 4 * pairsOf(attrs) * headDim,
      bytes: rowBytes(attrs, 2, 2),
      arguments: [
        ...[q, k, v].map((id) => headMap(c, id)),
        orNull(c, extras.sinks),
        orNull(c, extras.segmentIds),
        writes(to.out),
        to.lse === null ? nothing : writes(to.lse),
        ...[sequence, heads, kvHeads].map(int),
        float(scale),
        int(window ?? 0),
      ],
    });
    return;
  }
  if (takesFlash(attrs, to.real)) {
    c.kernel({
      module: flashModule(attrs),
      kernel: `flash${flashName(attrs)}`,
      real: "bf16",
      grid: [blocksFor(sequence, FLASH_ROWS), heads, batch],
      block: FLASH_THREADS,
      shared: tiles(5, attrs),
      flops: 2 * pairsOf(attrs) * (headDim + valueDim),
      arguments: [
        ...[q, k, v].map((id) => reads(c.as(id, to.real))),
        orNull(c, extras.sinks),
        orNull(c, extras.segmentIds),
        writes(to.out),
        to.lse === null ? nothing : writes(to.lse),
        ...flashSizes(attrs),
      ],
    });
    return;
  }
  checkHeads(attrs);
  c.kernel({
    ...tiledAttention("attention", attrs, c.options.chip),
    real: to.real,
    flops: 2 * pairsOf(attrs) * (headDim + valueDim),
    arguments: [
      ...[q, k, v].map((id) => reads(c.as(id, to.real))),
      ...[nothing, nothing, nothing],
      orNull(c, extras.sinks),
      nothing,
      orNull(c, extras.segmentIds),
      writes(to.out),
      to.lse === null ? nothing : writes(to.lse),
      ...sizes({ ...attrs, capacity: 0 }),
    ],
  });
}

/** The inputs that a use of attention and its gradient share. */
const sharedInputs = (attrs: AttentionAttrs, inputs: readonly ValueId[]): readonly ValueId[] =>
  inputs.slice(0, 3 + Number(attrs.sinks) + Number(attrs.segmentIds === true));

const keyOf = (attrs: AttentionAttrs, inputs: readonly ValueId[]): string =>
  useKey("attention", sharedInputs(attrs, inputs), attrs);

/** Gradients of the graph, by the key of the attention that they belong to. */
export function attentionGradients(nodes: readonly { prim: string; in: readonly ValueId[]; attrs: object }[]) {
  return new Map(
    nodes.flatMap(({ prim, in: inputs, attrs }, index) =>
      prim === "attentionGrad" ? [[keyOf(attrs as AttentionAttrs, inputs), index] as const] : [],
    ),
  );
}

/** Keeps its output and denominators where the graph has its gradient, too. */
export function lowerAttention(c: Context, node: NodeOf<"attention">): void {
  const { attrs } = node;
  const key = keyOf(attrs, node.in);
  const gradient = attentionGradients(c.graph.nodes).get(key);
  const [q, k, v] = node.in;
  const real = c.realOf(q, k, v);
  const out = c.define(node.out[0], real);
  const lse = gradient === undefined ? null : c.scratch(attrs.batch * attrs.sequence * attrs.heads);
  forward(c, attrs, node.in, attentionExtras(attrs, node.in), { out, lse, real });
  if (gradient === undefined || lse === null) return;
  c.extend(node.out[0], gradient);
  c.kept.set(key, [out, lse]);
}

/** The gradients of queries, keys and values by flash.cu or attention-gradients.cu. */
function portableGradients(
  c: Context,
  attrs: AttentionAttrs,
  sources: readonly Argument[],
  [dq, dk, dv]: readonly [ValueId, ValueId, ValueId, ...ValueId[]],
  real: Storage,
): void {
  const { batch, sequence, heads, kvHeads, headDim, valueDim } = attrs;
  const flash = takesFlash(attrs, real);
  const gradients = [
    { name: "GradQ", by: heads, flops: 2 * headDim + valueDim, outputs: [dq] },
    { name: "GradKV", by: kvHeads, flops: 2 * (headDim + valueDim), outputs: [dk, dv] },
  ] as const;
  for (const { name, by, flops, outputs } of gradients) {
    const shared = { flops: 2 * pairsOf(attrs) * flops };
    const targets = outputs.map((id) => writes(c.define(id, real)));
    if (flash)
      c.kernel({
        ...shared,
        module: flashModule(attrs),
        kernel: `flash${name}${flashName(attrs)}`,
        real: "bf16",
        grid: [blocksFor(sequence, FLASH_ROWS), by, batch],
        block: FLASH_THREADS,
        // Behind the tiles: logs and dots of two tiles of queries.
        shared: tiles(6, attrs) + 4 * 4 * FLASH_ROWS,
        arguments: [...sources, ...targets, ...flashSizes(attrs)],
      });
    else
      c.kernel({
        ...shared,
        ...tiledAttention(`attention${name}`, attrs, c.options.chip),
        real,
        arguments: [...sources, ...targets, ...sizes(attrs)],
      });
  }
}

/** Appends the launches of `attentionGrad`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerAttentionGrad(c: Context, node: NodeOf<"attentionGrad">): void {
  const { attrs } = node;
  const [q, k, v] = node.in;
  const [dq, dk, dv, dsinks] = node.out;
  const { batch, sequence, heads, valueDim } = attrs;
  const rows = batch * sequence * heads;
  const extras = attentionExtras(attrs, node.in);
  const kept = c.kept.get(keyOf(attrs, node.in));
  // The output's gradient comes last: there are at least q, k and v before it.
  const last = node.in.at(-1)!;
  const real = c.realOf(q, k, v);
  const [out, lse] = kept ?? [c.scratch(rows * valueDim, real), c.scratch(rows)];
  if (out === undefined || lse === undefined) throw new Error("attention has kept neither output nor denominators");
  if (kept === undefined) forward(c, attrs, node.in, extras, { out, lse, real });
  const hopper = takesHopper(c, attrs, real);
  if (hopper) hopperGradients(c, attrs, [q, k, v, last], { out, lse, segmentIds: extras.segmentIds }, [dq, dk, dv]);
  if (hopper && dsinks === undefined) return;
  const dout = reads(c.as(last, real));
  const dots = c.scratch(rows);
  c.kernel({
    module: "attention",
    kernel: "attentionDots",
    real,
    grid: [blocksFor(rows, WARPS), 1, 1],
    block: WARPS * LANES,
    flops: 2 * rows * valueDim,
    arguments: [reads(out), dout, writes(dots), int(rows), int(valueDim)],
  });
  if (!hopper) {
    const values = [q, k, v].map((id) => reads(c.as(id, real)));
    const sources = [...values, orNull(c, extras.segmentIds), dout, reads(lse), reads(dots)];
    portableGradients(c, attrs, sources, node.out, real);
  }
  if (dsinks === undefined || extras.sinks === null) return;
  c.kernel({
    module: "attention",
    kernel: "attentionSinks",
    grid: [heads, 1, 1],
    flops: 3 * rows,
    arguments: [
      reads(c.of(extras.sinks)),
      reads(lse),
      reads(dots),
      writes(c.define(dsinks)),
      int(batch * sequence),
      int(heads),
    ],
  });
}

/** Warps that share the keys of one new token, where there are fewer new tokens than FEW. */
const CACHED_WARPS = 4;
const FEW = 8;

/** Appends the launches of `cachedAttention`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerCachedAttention(c: Context, node: NodeOf<"cachedAttention">): void {
  const { attrs } = node;
  checkHeads(attrs);
  const [q, k, v, pastK, pastV, lengths] = node.in;
  const { sinks, starts } = cachedExtras(attrs, node.in);
  const { batch, sequence, heads, headDim, valueDim, capacity } = attrs;
  const real = c.options.cache === undefined ? c.realOf(q, k, v) : c.cacheStorage;
  const from = [
    ...[q, k, v, pastK, pastV].map((id) => reads(c.as(id, real))),
    reads(c.of(lengths)),
    orNull(c, sinks),
    orNull(c, starts),
  ];
  const out = writes(c.define(node.out[0], real));
  const flops = 2 * batch * sequence * heads * (capacity + sequence) * (headDim + valueDim);
  if (sequence < FEW)
    c.kernel({
      module: "attention",
      kernel: "cachedAttention",
      real,
      grid: [sequence, heads, batch],
      block: CACHED_WARPS * LANES,
      shared: 4 * (4 * Math.ceil(headDim / 4) + CACHED_WARPS * (valueDim + 2)),
      flops,
      arguments: [...from, out, ...sizes(attrs)],
    });
  else
    c.kernel({
      ...tiledAttention("attention", attrs, c.options.chip),
      real,
      flops,
      arguments: [...from, nothing, out, nothing, ...sizes(attrs)],
    });
}
