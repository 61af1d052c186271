/** Which parameters are trained, and how: groups with their own learning rate and weight decay, frozen parts. */
import { inputError } from "../../base/errors.js";
import type { ParameterGroups } from "../../base/schemas/index.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { isBuffer, slotsOf, type Slot } from "../../model/tensors/slots.js";
import { takesMuon } from "./muon.js";
import type { ParamTuning } from "../runtime/runtime.js";

type ParamGroup = keyof ParameterGroups;

export interface ParameterSettings {
  readonly groups?: ParameterGroups | undefined;
  /** Slot keys, `*` stands for any text. */
  readonly freeze?: readonly string[] | undefined;
  readonly optimizer?: { readonly method?: "adamw" | "muon" | undefined } | undefined;
}

export interface ParameterPlan {
  /** Keys that get no gradient: frozen ones, and state that moves by a rule of its own. */
  readonly frozen: ReadonlySet<string>;
  /** For every other key that differs from the common settings. */
  readonly tuning: Readonly<Record<string, ParamTuning>>;
}

/** Routed experts and routers are what upcycling adds; a shared expert sees every token, as a dense FFN does. */
export function groupOf({ at }: Slot): ParamGroup {
  if (at.expert !== undefined) return "experts";
  return at.part.startsWith("router") || at.part === "sharedRouter" ? "router" : "rest";
}

/** Throws inputError for a pattern that names no parameter, and where nothing is left to train. */
export function planParameters(
  spec: DecoderSpec,
  { groups = {}, freeze = [], optimizer }: ParameterSettings,
): ParameterPlan {
  const slots = slotsOf(spec);
  const frozen = new Set(
    slots.filter((slot) => isBuffer(slot.at) || groups[groupOf(slot)]?.freeze === true).map(({ key }) => key),
  );
  for (const pattern of freeze) {
    const matches = patternTest(pattern);
    const found = slots.filter(({ key }) => matches(key));
    if (found.length === 0) {
      const hint =
        `names look like ${["embed", "layers.0.q", slots.at(-1)!.key].join(", ")}; upcycle inspect shows a ` +
        "model's shape";
      throw inputError(`freeze "${pattern}" names no parameter of this model`, { where: "training.freeze", hint });
    }
    for (const { key } of found) frozen.add(key);
  }
  const trained = slots.filter(({ key }) => !frozen.has(key));
  if (trained.length === 0)
    throw inputError("every parameter is frozen, nothing is left to train", { where: "training" });
  const tuning = Object.fromEntries(
    trained.flatMap((slot): [string, ParamTuning][] => {
      const settings = groups[groupOf(slot)];
      const muon = optimizer?.method === "muon" && takesMuon(slot);
      if (settings?.lr === undefined && settings?.weightDecay === undefined && !muon) return [];
      return [
        [
          slot.key,
          {
            rate: settings?.lr ?? 1,
            decay: settings?.weightDecay ?? null,
            ...(muon ? { method: "muon" as const } : {}),
          },
        ],
      ];
    }),
  );
  return { frozen, tuning };
}

function patternTest(pattern: string): (key: string) => boolean {
  const expression = new RegExp(`^${pattern.replace(/\./g, "\\.").replace(/\*+/g, ".*")}$`);
  return (key) => expression.test(key);
}
