/** The update of a step on the GPU: its launches, and the numbers that they read. */
import { muonScale } from "../optimizer/muon.js";
import { ratesOf, usesMuon } from "../optimizer/state.js";
import type { MuonScale, StepSettings, TrainOptions } from "../runtime/runtime.js";
import type { DeviceMemory } from "./device.js";
import {
  RATES_BYTES,
  SETTINGS_BYTES,
  VERDICT_BYTES,
  lowerUpdate,
  updateInputs,
  type MuonMatrix,
  type UpdateInput,
} from "./lowering/update.js";
import type { Address } from "./native.js";
import { allOrNone } from "./owned.js";
import { DeviceProgram, type MeasuredLaunch } from "./program.js";
import type { Stream } from "./stream.js";
import type { DeviceTrainState } from "./train-state.js";

/** What the GPU found about a step. */
export interface Verdict {
  readonly applied: boolean;
  readonly spike: "loss" | "gradient" | null;
  readonly gradNorm: number;
}

/** Losses of the micro-batches: the first one's address, and elements from one to the next. */
interface Losses {
  readonly address: Address;
  readonly stride: number;
}

const spikes = [null, "loss", "gradient"] as const;

/** The struct Settings of optimizer.cu. */
function settingsOf(o: StepSettings, batches: number): Float64Array {
  return Float64Array.of(
    1 / batches,
    o.clipNorm ?? Infinity,
    o.beta1,
    o.beta2,
    1 / (1 - o.beta1 ** o.update),
    1 / Math.sqrt(1 - o.beta2 ** o.update),
    o.eps,
    o.averageDecay ?? -1,
    o.limits?.loss ?? Infinity,
    o.limits?.gradNorm ?? Infinity,
    o.muon?.momentum ?? 0,
    Number(o.muon?.nesterov ?? false),
    batches,
  );
}

/** What the GPU has found about a step. */
export function verdictOf([applied = 0, spike = 0, gradNorm = NaN]: Float64Array): Verdict {
  return { applied: applied !== 0, spike: spikes[spike] ?? null, gradNorm };
}

/** A step's update on the GPU: clipping, the spike guard, the optimizer. */
export class StepUpdate implements Disposable {
  /** One program for each scale that Muon's steps have asked for. */
  private readonly programs = new Map<MuonScale | "adamw", DeviceProgram>();
  private readonly small: Readonly<Record<"chunks" | "rates" | "settings" | "verdict", DeviceMemory>>;
  private readonly counts: { readonly all: number; readonly adamw: number };

  constructor(
    private readonly stream: Stream,
    private readonly state: DeviceTrainState,
    private readonly options: TrainOptions,
    private readonly losses: Losses,
  ) {
    const { device } = stream;
    const { table, all, adamw } = state.chunks(this.source);
    this.counts = { all, adamw };
    this.small = allOrNone((owned) => {
      const small = {
        chunks: owned.keep(device.allocate(table.byteLength, "the optimizer's table")),
        rates: owned.keep(device.allocate(state.moving.length * RATES_BYTES, "learning rates")),
        settings: owned.keep(device.allocate(SETTINGS_BYTES, "settings")),
        verdict: owned.keep(device.allocate(VERDICT_BYTES, "a step's verdict")),
      };
      stream.upload(small.chunks.address, table);
      return small;
    });
  }

  private get source(): "gradient" | "accumulated" {
    return this.options.accumulate ? "accumulated" : "gradient";
  }

  private matrices(scale: MuonScale): MuonMatrix[] {
    const { state, options } = this;
    return state.moving.flatMap(({ key, shape }, parameter): MuonMatrix[] => {
      const [rows, columns] = shape;
      if (!usesMuon(options, key) || rows === undefined || columns === undefined) return [];
      return [
        {
          parameter,
          rows,
          columns,
          weight: state.offsetOf("weight", key) ?? 0,
          gradient: state.offsetOf(this.source, key) ?? 0,
          moment: state.offsetOf("moment1", key) ?? 0,
          average: state.offsetOf("average", key),
          half: state.halves.bytes > 0,
          scale: muonScale(scale, rows, columns),
        },
      ];
    });
  }

  private inputs(): Readonly<Record<UpdateInput, { readonly address: Address; readonly bytes: number }>> {
    const { state, small, losses } = this;
    const region = (kind: Parameters<DeviceTrainState["base"]>[0]) => ({
      address: state.base(kind),
      bytes: state.bytesOf(kind),
    });
    return {
      ...small,
      losses: { address: losses.address, bytes: 4 },
      weights: region("weight"),
      gradients: region(this.source),
      moments1: region("moment1"),
      moments2: region("moment2"),
      averages: region("average"),
      halves: state.halves,
    };
  }

  private async program(scale: MuonScale | "adamw"): Promise<DeviceProgram> {
    const known = this.programs.get(scale);
    if (known !== undefined) return known;
    const inputs = this.inputs();
    const list = lowerUpdate({
      bytes: Object.fromEntries(updateInputs.map((name) => [name, inputs[name].bytes])) as Record<UpdateInput, number>,
      chunks: this.counts.all,
      adamwChunks: this.counts.adamw,
      lossStride: this.losses.stride,
      muon: scale === "adamw" ? [] : this.matrices(scale),
    });
    const addresses = updateInputs.map((name) => inputs[name].address);
    const made = await DeviceProgram.open(this.stream, list, { inputs: addresses, outputs: [] });
    this.programs.set(scale, made);
    return made;
  }

  /** Opens what the first step needs, so that it is refused before a run begins. */
  async prepare(): Promise<void> {
    if (!this.state.moving.some(({ key }) => usesMuon(this.options, key))) await this.program("adamw");
  }

  /** Issues the update; `verdict` gets what became of it, see `verdictOf`. */
  async issue(settings: StepSettings, batches: number, verdict: Float64Array): Promise<void> {
    const { state, options, stream, small } = this;
    const rates = state.moving.flatMap((param) => {
      const { rate, decay } = ratesOf(options, param, settings);
      return [rate, 1 - rate * decay];
    });
    const muon = state.moving.some(({ key }) => usesMuon(options, key));
    const program = await this.program(muon ? (settings.muon?.scale ?? "rms") : "adamw");
    stream.device.enter();
    stream.upload(small.rates.address, Float32Array.from(rates));
    stream.upload(small.settings.address, settingsOf(settings, batches));
    program.launch();
    stream.download(verdict, small.verdict.address);
  }

  /** What each launch of the update takes. */
  async measure(): Promise<readonly MeasuredLaunch[]> {
    const times: MeasuredLaunch[] = [];
    for (const program of this.programs.values()) times.push(...(await program.measure()));
    return times;
  }

  [Symbol.dispose](): void {
    for (const program of this.programs.values()) program[Symbol.dispose]();
    for (const memory of Object.values(this.small)) memory[Symbol.dispose]();
  }
}
