/** The table of GPUs that plans are made for: YAML that users can copy, edit, and lay over the one that comes along. */
import { z } from "zod";
import { parseConfig } from "./validate.js";

const positive = z.number().gt(0);
const source = z.string().min(1);

const gpuSchema = z
  .strictObject({
    title: z.string().min(1).optional().describe("Name for people; the key if left out."),
    peakTflops: z
      .strictObject({
        bf16: positive.max(1e5).describe("bfloat16 with float32 accumulation."),
        fp8: positive.max(1e6).optional().describe("8-bit floating point."),
      })
      .describe("Dense TFLOP/s, without sparsity."),
    memoryGB: positive.max(1e5).describe("Memory of one GPU, 10^9 bytes."),
    hbmTBs: positive.max(1e4).describe("Bandwidth of that memory, TB/s."),
    intraGBs: positive
      .max(1e5)
      .describe(
        "GB/s that one GPU sends to others of its node, one direction: half of a printed bidirectional figure.",
      ),
    interGBs: positive
      .max(1e5)
      .describe("GB/s that one GPU sends to other nodes, one direction: 50 for a 400 Gb/s port each."),
    gpusPerNode: z.int().min(1).max(1024).describe("GPUs that the fast links join."),
    pricePerHour: z.number().gt(0).max(1e5).describe("Money for one GPU and hour."),
    sources: z
      .strictObject({
        peak: source.optional().describe("Of peakTflops."),
        memory: source.optional().describe("Of memoryGB and hbmTBs."),
        links: source.optional().describe("Of intraGBs, interGBs and gpusPerNode."),
        price: source.optional().describe("Of pricePerHour."),
      })
      .optional()
      .describe("Where the figures are from."),
  })
  .describe("One kind of GPU.");

/** A user's table of GPUs, in which any figure may be left out that the built-in table has. */
export const hardwareSchema = z
  .strictObject({
    currency: z.string().min(1).max(8).optional().describe("Of all prices, for people."),
    gpus: z
      .record(z.string().regex(/^[a-z0-9][a-z0-9._-]*$/), gpuSchema.partial())
      .describe("By name; rows of your file are laid over rows of the same name, figure by figure."),
  })
  .describe("Hardware table of upcycle plan.");

type GpuRow = z.infer<typeof gpuSchema>;

/** One kind of GPU with all its figures, in the units of the file. */
export type GpuEntry = GpuRow & { readonly title: string };
/** A table of GPUs by name. */
export interface HardwareTable {
  /** Currency of all prices. */
  readonly currency: string;
  readonly gpus: Readonly<Record<string, GpuEntry>>;
}

interface NamedText {
  readonly text: string;
  readonly file: string;
}

/** Figures of one kind of GPU from several files, and the last file that had any. */
interface MergedRow {
  readonly figures: Partial<GpuRow>;
  readonly from: NamedText;
}

/**
 * The tables of several files, each laid over those before it. Throws inputError, naming the line, or the figure that a
 * new GPU lacks.
 */
export function parseHardware(files: readonly NamedText[]): HardwareTable {
  let currency = "USD";
  const rows: Record<string, MergedRow> = {};
  for (const from of files) {
    const table = parseConfig(hardwareSchema, from.text, from.file);
    currency = table.currency ?? currency;
    for (const [name, row] of Object.entries(table.gpus)) {
      rows[name] = { figures: laidOver(rows[name]?.figures, row, from.file), from };
    }
  }
  const gpus = Object.entries(rows).map(([name, row]): [string, GpuEntry] => [name, gpuEntry(name, row)]);
  return { currency, gpus: Object.fromEntries(gpus) };
}

/** A user's figure has no source but the user's file, unless the file names one. */
function laidOver(below: Partial<GpuRow> | undefined, row: Partial<GpuRow>, file: string): Partial<GpuRow> {
  if (below === undefined) return row;
  return { ...below, ...row, sources: { ...below.sources, ...changedSources(row, file), ...row.sources } };
}

function gpuEntry(name: string, { figures, from }: MergedRow): GpuEntry {
  // Where a figure is missing its file is parsed again, for the words and the line of the error.
  if (!gpuSchema.safeParse(figures).success)
    parseConfig(z.object({ gpus: z.record(z.string(), gpuSchema) }), from.text, from.file);
  return { ...(figures as GpuRow), title: figures.title ?? name };
}

/** `file` as the source of every figure that `row` sets, under the key of `sources` that is about it. */
function changedSources(row: Partial<GpuRow>, file: string): Record<string, string> {
  const figuresOf: Record<string, readonly (keyof GpuRow)[]> = {
    peak: ["peakTflops"],
    memory: ["memoryGB", "hbmTBs"],
    links: ["intraGBs", "interGBs", "gpusPerNode"],
    price: ["pricePerHour"],
  };
  return Object.fromEntries(
    Object.entries(figuresOf)
      .filter(([, keys]) => keys.some((key) => row[key] !== undefined))
      .map(([name]) => [name, file]),
  );
}
