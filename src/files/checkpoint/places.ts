/** In which of a family's forms each slot of a folder lies: that of files, or that of transformers 5's modules. */
import { inputError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { hasModuleNames } from "../../model/tensors/names.js";
import { inTurnedExperts, placements, type Placement } from "../../model/tensors/placement.js";

/** What is known of a folder's tensors, and of the class that has saved them. */
interface Stored {
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>;
  readonly dir: string;
  /** The class stores the matrices of packed experts the other way round (`turnsExperts`). */
  readonly turned: boolean;
}

/**
 * The places of every slot, in write order: the module's where a file has all of those, and none of the file's own.
 * Throws inputError where a slot is there in both forms.
 */
export function placesIn(spec: DecoderSpec, { tensors, dir, turned }: Stored): Placement[] {
  const own = placements(spec);
  if (!hasModuleNames(spec) || !mayBeModules(own, tensors)) return own;
  const modules = bySlot(placements(spec, "modules"));
  const isThere = (places: readonly Placement[]): boolean => places.every(({ name }) => tensors.has(name));
  return [...bySlot(own)].flatMap(([key, places]) => {
    const others = modules.get(key) ?? [];
    const sameNames = places.every(({ name }, i) => name === others[i]?.name);
    if (sameNames || !isThere(others)) return places;
    if (!isThere(places)) {
      return turned
        ? others.map((place) => inTurnedExperts(place, tensors.get(place.name)?.shape ?? place.shape))
        : others;
    }
    throw inputError(`${places[0]?.name} and ${others[0]?.name} both hold ${key}`, {
      where: dir,
      hint: "remove the one that is not meant",
    });
  });
}

/** A missing name, or one of packed experts. */
function mayBeModules(own: readonly Placement[], tensors: ReadonlyMap<string, unknown>): boolean {
  if (own.some(({ name }) => !tensors.has(name))) return true;
  for (const name of tensors.keys()) if (name.endsWith(".experts.gate_up_proj")) return true;
  return false;
}

function bySlot(places: readonly Placement[]): Map<string, Placement[]> {
  const slots = new Map<string, Placement[]>();
  for (const place of places) {
    const others = slots.get(place.slot.key);
    if (others === undefined) slots.set(place.slot.key, [place]);
    else others.push(place);
  }
  return slots;
}
