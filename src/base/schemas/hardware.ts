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

export const hardwareSchema = z
  .strictObject({
    currency: z.string().min(1).max(8).optional().describe("Of all prices, for people."),
    gpus: z
      .record(z.string().regex(/^[a-z0-9][a-z0-9._-]*$/), gpuSchema.partial())
      .describe("By name; rows of your file are laid over rows of the same name, figure by figure."),
  })
  .describe("Hardware table of upcycle plan.");

export type GpuEntry = z.infer<typeof gpuSchema> & { readonly title: string };
export interface HardwareTable {
  readonly currency: string;
  readonly gpus: Readonly<Record<string, GpuEntry>>;
}

/**
 * The built-in table with the user's laid over it. Throws `input`, naming the line, or the figure that a new GPU lacks.
 */
export function parseHardware(files: readonly { readonly text: string; readonly file: string }[]): HardwareTable {
  let currency = "USD";
  const rows: Record<string, Partial<z.infer<typeof gpuSchema>>> = {};
  const from: Record<string, { text: string; file: string }> = {};
  for (const { text, file } of files) {
    const table = parseConfig(hardwareSchema, text, file);
    currency = table.currency ?? currency;
    for (const [name, row] of Object.entries(table.gpus)) {
      // A user's figure has no source but the user.
      rows[name] = {
        ...rows[name],
        ...row,
        ...(rows[name] !== undefined && {
          sources: { ...rows[name].sources, ...changedSources(row, file), ...row.sources },
        }),
      };
      from[name] = { text, file };
    }
  }
  const gpus = Object.entries(rows).map(([name, row]): [string, GpuEntry] => {
    const whole = gpuSchema.safeParse(row);
    // Parsed again where something is missing, for the words and the line of the error.
    if (!whole.success)
      parseConfig(z.object({ gpus: z.record(z.string(), gpuSchema) }), from[name]!.text, from[name]!.file);
    return [name, { ...(row as z.infer<typeof gpuSchema>), title: row.title ?? name }];
  });
  return { currency, gpus: Object.fromEntries(gpus) };
}

function changedSources(row: Partial<z.infer<typeof gpuSchema>>, file: string): Record<string, string> {
  const of: Record<string, readonly (keyof typeof row)[]> = {
    peak: ["peakTflops"],
    memory: ["memoryGB", "hbmTBs"],
    links: ["intraGBs", "interGBs", "gpusPerNode"],
    price: ["pricePerHour"],
  };
  return Object.fromEntries(
    Object.entries(of)
      .filter(([, keys]) => keys.some((key) => row[key] !== undefined))
      .map(([name]) => [name, file]),
  );
}
