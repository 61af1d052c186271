/**
 * Weights of forward programs on a GPU: in float32, or in bfloat16 with float32 beside it of those alone that a program
 * reads so, such as routers and norms.
 */
import { at } from "../../base/at.js";
import type { Device, DeviceMemory } from "./device.js";
import { castList } from "./lowering/cache.js";
import { aligned } from "./lowering/memory.js";
import type { Address } from "./native.js";
import { allOrNoneLater } from "./owned.js";
import { runOnce } from "./program.js";
import type { Stream } from "./stream.js";

/** Bytes of a piece of memory that several weights share: neighbours lie side by side, as joint products want them. */
const SLAB = 256 << 20;
/** Weights of as many elements, which only products read, do not keep their float32 until the first program is seen. */
const LARGE = 1 << 22;

interface Weight {
  readonly count: number;
  floats: DeviceMemory | null;
  /** Where its bfloat16 lies; null where none is kept. */
  readonly half: Address | null;
}

/** The weights of a runtime, by key. */
export class ForwardWeights implements Disposable {
  private readonly weights = new Map<string, Weight>();
  private readonly slabs: DeviceMemory[] = [];
  private used = 0;
  /** Keys whose float32 a program has asked for. */
  private readonly asked = new Set<string>();

  constructor(
    private readonly device: Device,
    private readonly stream: Stream,
    private readonly halves: boolean,
  ) {}

  /** Whether a weight of this size would lie where the one before it does. */
  keepsPlace(key: string, count: number): boolean {
    const known = this.weights.get(key);
    return known === undefined || known.count === count;
  }

  async write(key: string, data: Float32Array): Promise<void> {
    const { device, stream } = this;
    const known = this.keepsPlace(key, data.length) ? this.weights.get(key) : undefined;
    if (known === undefined) this.weights.get(key)?.floats?.[Symbol.dispose]();
    const weight: Weight = known ?? {
      count: data.length,
      floats: null,
      half: this.halves ? this.place(2 * data.length) : null,
    };
    weight.floats ??= device.allocate(data.byteLength, `weight ${key}`);
    this.weights.set(key, weight);
    stream.upload(weight.floats.address, data);
    if (weight.half !== null) await this.cast(weight.floats.address, weight.half, data.length, "bf16");
    await stream.finished();
    if (this.halves && data.length >= LARGE && !this.asked.has(key)) this.drop(weight);
  }

  /** Memory in a slab; what a weight of another size leaves behind is not used again. */
  private place(bytes: number): Address {
    const last = this.slabs.at(-1);
    if (last === undefined || this.used + bytes > last.bytes) {
      this.slabs.push(this.device.allocate(Math.max(SLAB, aligned(bytes)), "weights in bfloat16"));
      this.used = 0;
    }
    const address = at(this.slabs, this.slabs.length - 1).address + BigInt(this.used);
    this.used += aligned(bytes);
    return address;
  }

  private async cast(from: Address, to: Address, count: number, storage: "bf16" | "f32"): Promise<void> {
    await runOnce(this.stream, castList(count, storage), { inputs: [from], outputs: [to] });
  }

  private drop(weight: Weight): void {
    weight.floats?.[Symbol.dispose]();
    weight.floats = null;
  }

  private weightOf(key: string): Weight {
    const weight = this.weights.get(key);
    if (weight === undefined) throw new Error(`weight ${key} was never written`);
    return weight;
  }

  /** Where a weight's bfloat16 lies. */
  halfOf(key: string): Address {
    const { half } = this.weightOf(key);
    if (half === null) throw new Error(`weight ${key} is kept in float32`);
    return half;
  }

  /** Where a weight's float32 lies; one that was given up comes back as the bfloat16 that it became. */
  async floatsOf(key: string): Promise<Address> {
    const weight = this.weightOf(key);
    this.asked.add(key);
    if (weight.floats === null) {
      weight.floats = await allOrNoneLater(async (owned) => {
        const floats = owned.keep(this.device.allocate(4 * weight.count, `weight ${key}`));
        await this.cast(this.halfOf(key), floats.address, weight.count, "f32");
        return floats;
      });
    }
    return weight.floats.address;
  }

  /** Gives up the float32 of a weight that no program has asked for. */
  giveUpFloats(key: string): void {
    const weight = this.weightOf(key);
    if (weight.half !== null && !this.asked.has(key)) this.drop(weight);
  }

  [Symbol.dispose](): void {
    for (const { floats } of this.weights.values()) floats?.[Symbol.dispose]();
    for (const slab of this.slabs) slab[Symbol.dispose]();
  }
}
