/** Which parameters are trained, and how: groups with their own learning rate and weight decay, frozen parts. */
import { inputError } from "../../base/errors.js";
import type { ParameterGroups } from "../../base/schemas/index.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { isBuffer, slotsOf, type Slot } from "../../model/tensors/slots.js";
import { takesMuon } from "./muon.js";
import type { ParamTuning } from "../runtime/runtime.js";

type ParamGroup = keyof ParameterGroups;

/** What a training's block says of its parameters. */
export interface ParameterSettings {
  readonly groups?: ParameterGroups | undefined;
  /** Slot keys, `*` stands for any text. */
  readonly freeze?: readonly string[] | undefined;
  readonly optimizer?: { readonly method?: "adamw" | "muon" | undefined } | undefined;
}

/** Which parameters are trained, and how. */
export interface ParameterPlan {
  /** Keys that get no gradient: frozen ones, and state that moves by a rule of its own. */
  readonly frozen: ReadonlySet<string>;
  /** How every other parameter departs from the common settings, by key, where it does. */
  readonly tuning: Readonly<Record<string, ParamTuning>>;
}

/**
 * The group of a parameter. Routed experts and routers are what upcycling adds; a shared expert sees every token, as a
 * dense FFN does, so it belongs to the rest.
 */
export function groupOf({ at }: Slot): ParamGroup {
  if (at.expert !== undefined) return "experts";
  return at.part.startsWith("router") || at.part === "sharedRouter" ? "router" : "rest";
}

/**
 * Decides for every parameter whether and how it is trained. Throws inputError for a pattern that names no parameter,
 * and where nothing is left to train.
 */
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
    const matching = slots.filter(({ key }) => matches(key));
    if (matching.length === 0) {
      const examples = ["embed", "layers.0.q", ...slots.slice(-1).map(({ key }) => key)].join(", ");
      const hint = `names look like ${examples}; upcycle inspect shows a model's shape`;
      throw inputError(`freeze "${pattern}" names no parameter of this model`, { where: "training.freeze", hint });
    }
    for (const { key } of matching) frozen.add(key);
  }
  const trained = slots.filter(({ key }) => !frozen.has(key));
  if (trained.length === 0)
    throw inputError("every parameter is frozen, nothing is left to train", { where: "training" });
  const usesMuon = (slot: Slot): boolean => optimizer?.method === "muon" && takesMuon(slot);
  const tuning = Object.fromEntries(
    trained.flatMap((slot): [string, ParamTuning][] => {
      const own = tuningOf(groups[groupOf(slot)], usesMuon(slot));
      return own === null ? [] : [[slot.key, own]];
    }),
  );
  return { frozen, tuning };
}

/** How a parameter of a group departs from the common settings; null where it does not. */
function tuningOf(group: ParameterGroups[ParamGroup], muon: boolean): ParamTuning | null {
  if (group?.lr === undefined && group?.weightDecay === undefined && !muon) return null;
  const common = { rate: group?.lr ?? 1, decay: group?.weightDecay ?? null };
  return muon ? { ...common, method: "muon" } : common;
}

/** Whether a key matches a pattern in which `*` stands for any text. */
function patternTest(pattern: string): (key: string) => boolean {
  const expression = new RegExp(`^${pattern.replace(/\./g, "\\.").replace(/\*+/g, ".*")}$`);
  return (key) => expression.test(key);
}
