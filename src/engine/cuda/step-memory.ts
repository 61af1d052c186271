/** Host memory of the steps that are under way: what the GPU reads of a step, and what it answers. */
import type { MicroBatch } from "../runtime/runtime.js";
import type { Device, PinnedMemory } from "./device.js";
import type { Address } from "./native.js";
import type { Stream } from "./stream.js";
import { VERDICT_BYTES } from "./lowering/update.js";

const WORD = 4;
/** Pieces begin at multiples of so many bytes, as float64 needs it. */
const ALIGN = 8;
const aligned = (bytes: number): number => Math.ceil(bytes / ALIGN) * ALIGN;

/** Memory of one step, whose tokens the GPU fetches by itself. */
export class StepMemory implements Disposable {
  private readonly pinned: PinnedMemory;
  /** Where the losses of the micro-batches come to lie. */
  readonly losses: Uint8Array;
  /** Where the update's verdict comes to lie. */
  readonly verdict: Float64Array;
  private readonly tokens: Int32Array;

  /** For so many micro-batches of so many tokens, whose losses take so many bytes together. */
  constructor(
    device: Device,
    readonly batches: number,
    private readonly perBatch: number,
    lossBytes: number,
  ) {
    const words = 2 * batches * perBatch;
    const first = VERDICT_BYTES + aligned(lossBytes);
    this.pinned = device.pinned(first + WORD * words);
    const { buffer } = this.pinned;
    this.verdict = new Float64Array(buffer, 0, VERDICT_BYTES / 8);
    this.losses = new Uint8Array(buffer, VERDICT_BYTES, lossBytes);
    this.tokens = new Int32Array(buffer, first, words);
  }

  /** Issues the copy of a micro-batch's tokens to the GPU. */
  upload(stream: Stream, micro: number, { ids, targets }: MicroBatch, to: { ids: Address; targets: Address }): void {
    for (const [i, [data, address]] of [[ids, to.ids] as const, [targets, to.targets] as const].entries()) {
      const first = (2 * micro + i) * this.perBatch;
      const own = this.tokens.subarray(first, first + data.length);
      own.set(data);
      stream.upload(address, own);
    }
  }

  [Symbol.dispose](): void {
    this.pinned[Symbol.dispose]();
  }
}
