/** The model card of a model that was made of another mixture of experts: merged, or with its experts multiplied. */
import { bytes, compact } from "../../base/format.js";
import { markdownText } from "../../base/markdown.js";
import type { Checkpoint } from "../../files/checkpoint/open.js";
import type { WriteDtype } from "../../files/checkpoint/write.js";
import { countParams } from "../../model/cost/params.js";
import { modelName } from "../../files/hub/reference.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { adapterRows, dtypeNames, licence, matterLines, rows, shownName } from "./card.js";
import { readParentCard } from "./parent-card.js";
import { adapterFacts } from "./parents.js";
import { toolVersion } from "./version.js";

/** What a card says of one way of deriving a model. */
export interface DerivedCardWords {
  /** The end of the title, which begins with the source's name. */
  readonly title: string;
  /**
   * The beginning of the first sentence, such as `A dense model, merged from the experts of`; the source's name
   * follows.
   */
  readonly what: string;
  /** Tags for the Hub. */
  readonly tags: readonly string[];
  /** Rows of the table that every card has: what each says, and what it says of this model. */
  readonly summary: readonly (readonly [string, string])[];
}

interface DerivedCardFacts extends DerivedCardWords {
  readonly target: DecoderSpec;
  readonly dtype: WriteDtype;
  readonly weightBytes: number;
  readonly warnings: readonly string[];
}

/** The text of the card. It holds neither times nor paths, so that equal facts give equal text. */
export async function derivedCard(
  checkpoint: Checkpoint,
  { title, what, tags, target, dtype, weightBytes, summary, warnings }: DerivedCardFacts,
): Promise<string> {
  const { dir, config, spec } = checkpoint;
  const [base, parent, adapter] = [modelName(dir), await readParentCard(dir, config), await adapterFacts(checkpoint)];
  const name = shownName(base, adapter);
  return [
    ...matterLines([{ name: base, card: parent }, ...(adapter === null ? [] : [adapter])], target.family, tags),
    "",
    `# ${name} ${title}`,
    "",
    `${what} **${name}** with Upcycle ${toolVersion}.`,
    "",
    ...rows([
      ["from", `${markdownText(base)} (${spec.family}), ${compact(countParams(spec).total)} parameters`],
      ...adapterRows("its adapter", adapter),
      ["parameters", compact(countParams(target).total)],
      ["family", target.family],
      ...summary,
      ["weights", `${bytes(weightBytes, 3)} as ${dtypeNames[dtype]}`],
      ["licence", licence(parent)],
    ]),
    "",
    ...(warnings.length === 0 ? [] : [...warnings.map((warning) => `- ${markdownText(warning)}`), ""]),
  ].join("\n");
}
