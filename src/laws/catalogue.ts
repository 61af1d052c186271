/** All laws with a name. */
import { chinchilla, joint } from "./forms/chinchilla.js";
import { clark } from "./forms/clark.js";
import { kaplan } from "./forms/kaplan.js";
import { ludziejewski } from "./forms/ludziejewski.js";
import { abnar, krajewski } from "./forms/moe.js";
import { upcycling, upcyclingAdditive, upcyclingData, upcyclingNoInteraction, upcyclingTotal } from "./forms/upcycling.js";
import type { Law } from "./types.js";

export const laws: readonly Law[] = [
  chinchilla, joint, kaplan, upcycling, upcyclingData, upcyclingNoInteraction, upcyclingAdditive, upcyclingTotal, krajewski, ludziejewski, clark, abnar,
];

export function lawById(id: string): Law | undefined {
  return laws.find((law) => law.id === id);
}
