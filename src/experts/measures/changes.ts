/** Changes of experts as a user writes them: 3:7 is expert 7 of layer 3. */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { mostQuoted, visibleLine } from "../../base/shown.js";
import type { DecoderSpec, MoeFfn } from "../../model/decoder/types.js";
import type { ExpertsChange } from "../../model/results/experts.js";

/** `3:7,3:9,5:0` of --without, or `3:1+2,5:0+4` of --merged. Throws inputError naming the option. */
export function parseChange(kind: ExpertsChange["kind"], text: string): ExpertsChange {
  const pattern = kind === "without" ? /^(\d{1,6}):(\d{1,6})$/ : /^(\d{1,6}):(\d{1,6}(?:\+\d{1,6})+)$/;
  const groups = text.split(",").map((part) => {
    const [, layer, experts = ""] = pattern.exec(part.trim()) ?? [];
    if (layer === undefined)
      throw inputError(`"${visibleLine(part, mostQuoted)}" names no ${kind === "without" ? "expert" : "experts"}`, {
        where: `--${kind}`,
        hint: kind === "without" ? "write LAYER:EXPERT, such as 3:7,5:0" : "write LAYER:A+B, such as 3:1+2,5:0+4",
      });
    return { layer: Number(layer), experts: experts.split("+").map(Number) };
  });
  return { kind, groups };
}

/** A change as it is written on the command line. */
export function changeWords({ groups }: Pick<ExpertsChange, "groups">): string {
  return groups.map(({ layer, experts }) => `${layer}:${experts.join("+")}`).join(",");
}

/** Throws inputError for a change that the model cannot be run with: no such layer or expert, or too few that stay. */
export function requireChange(spec: DecoderSpec, change: ExpertsChange): void {
  const where = `--${change.kind} ${changeWords(change)}`;
  const named = new Map<number, number[]>();
  for (const { layer, experts } of change.groups) {
    const ffn = expertsAt(spec, layer, where);
    for (const expert of experts) {
      if (expert >= ffn.experts)
        throw inputError(`layer ${layer} has experts 0 to ${ffn.experts - 1}, not ${expert}`, { where });
      const own = named.get(layer) ?? [];
      if (own.includes(expert)) throw inputError(`expert ${expert} of layer ${layer} is named twice`, { where });
      named.set(layer, [...own, expert]);
    }
  }
  if (change.kind === "merged") return;
  for (const [layer, experts] of named) {
    const problem = leftOutProblem(spec, layer, experts);
    if (problem !== null) throw inputError(problem, { where, hint: "leave fewer out" });
  }
}

function expertsAt({ layers }: DecoderSpec, layer: number, where: string): MoeFfn {
  const own = layers[layer];
  if (own === undefined) throw inputError(`the model has layers 0 to ${layers.length - 1}, not ${layer}`, { where });
  if (own.ffn.kind === "dense") throw inputError(`layer ${layer} is dense and has no experts`, { where });
  return own.ffn;
}

/**
 * Why a layer of experts cannot be run without some of them; null where it can. A token needs as many experts as it
 * chooses, whichever groups are open, and a group is judged by its two best.
 */
export function leftOutProblem({ layers }: DecoderSpec, layer: number, without: readonly number[]): string | null {
  const { ffn } = at(layers, layer);
  if (ffn.kind === "dense") return `layer ${layer} is dense and has no experts`;
  const { experts, topK, router } = ffn;
  const stay = experts - without.length;
  if (stay < topK) return `layer ${layer} would keep ${stay} of ${experts} experts, and a token chooses ${topK}`;
  if (router.groups === null) return null;
  const { count, kept } = router.groups;
  const size = experts / count;
  const groups = Array.from({ length: count }, (_, group) => {
    const gone = without.filter((expert) => Math.floor(expert / size) === group).length;
    return size - gone;
  }).sort((a, b) => a - b);
  const fewest = groups.slice(0, kept).reduce((sum, one) => sum + one, 0);
  return at(groups, 0) < 2 || fewest < topK
    ? `layer ${layer} chooses from ${kept} of ${count} groups of ${size} experts, of which one would keep too few`
    : null;
}
