/** Results of studies as earlier versions wrote them. */
import type { ArmResult, ParentResult, StudyResult } from "./result.js";

/** A result with one parent, whose arms name none. */
interface FirstResult extends Omit<StudyResult, "version" | "parents" | "arms" | "questions"> {
  readonly version: 1;
  readonly parent: Omit<ParentResult, "id">;
  readonly arms: readonly Omit<ArmResult, "arm" | "parent">[];
}

/** The content of a `result.json`, as results are now. */
export function studyResultOf(data: unknown): StudyResult {
  const result = data as StudyResult | FirstResult;
  if (result.version !== 1) return result;
  const { parent, arms, ...rest } = result;
  return {
    ...rest,
    version: 2,
    parents: [{ ...parent, id: "parent" }],
    arms: arms.map((arm) => ({ ...arm, arm: arm.id, parent: "parent" })),
    questions: [],
  };
}
