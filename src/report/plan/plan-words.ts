/** A plan in words, for terminal and page alike: the answer, the budget, and how tokens would best be split. */
import { at } from "../../base/at.js";
import { compact, duration, fixed, notAvailable, percent, significant } from "../../base/format.js";
import type { CatchUp } from "../../laws/planner/crossing.js";
import type { ArmId, PlanBudget } from "../../laws/planner/arms.js";
import type { Plan } from "../../laws/planner/plan.js";
import type { Answer, Comparison, Interval } from "../../laws/planner/verdict.js";

/** A loss with four decimals. */
export const loss4 = (value: number): string => fixed(value, 4);
/** A number in words, or `n/a` where there is none. */
export const orNone = (value: number | null, show: (number: number) => string): string =>
  value === null ? notAvailable : show(value);

/** A budget in words; of several limits the least counts. */
export function budgetWords({ tokens, gpuHours, money, days }: PlanBudget, currency: string): string {
  const parts = [
    tokens === null ? "" : `${compact(tokens)} tokens`,
    gpuHours === null ? "" : `${compact(gpuHours)} GPU hours`,
    money === null ? "" : `${compact(money)} ${currency}`,
    days === null ? "" : `${significant(days, 2)} days`,
  ].filter((part) => part !== "");
  return parts.length === 1 ? at(parts, 0) : `the least of ${parts.join(", ")}`;
}

/** The answer: what to do in a few words, and the sentences behind it, of which the first has both comparisons. */
interface AnswerWords {
  readonly headline: string;
  readonly sentences: readonly string[];
}

/** The answer to a plan, headline and sentences. */
export function answerWords(plan: Plan): AnswerWords {
  const { answer, arms, main } = plan;
  if (plan.moeParent) return { headline: "Costs only", sentences: [costWords(plan)] };
  if (answer === null) {
    const concerned = arms.filter(({ recipe }) => recipe === null || recipe === main);
    const out = concerned.filter(({ loss }) => loss === null).map(({ label }) => label);
    const sentence = `${out.join(", ")} cannot be trained on this hardware within this budget.`;
    return { headline: "No answer", sentences: [sentence] };
  }
  const [headline, ...sentences] =
    answer.verdict === "open"
      ? [
          openHeadline(answer),
          openWords(answer, plan),
          ordersWords(answer),
          whyOpen(answer, plan),
          narrowingWords(answer, plan),
        ]
      : [
          verdictHeadline(answer),
          verdictWords(answer, plan),
          tieAdvice(answer, plan),
          budgetWordsOf(plan),
          certaintyWords(plan),
        ];
  return { headline, sentences: [...sentences, backtestWords(plan)].filter((text) => text !== "") };
}

/** The answer in a few sentences, the first of which says what to do and both comparisons behind it. */
export function planAnswer(plan: Plan): readonly string[] {
  const { headline, sentences } = answerWords(plan);
  const first = at(sentences, 0);
  return [headline.includes(":") ? `${headline}. ${capital(first)}` : `${headline}: ${first}`, ...sentences.slice(1)];
}

/** What an MoE parent costs: nothing else can be said of it. */
function costWords({ name, arms, currency }: Plan): string {
  const costs = arms.map(({ label, tokens, seconds, money }) =>
    tokens === null || seconds === null
      ? `${label} does not fit`
      : `${label} takes ${duration(seconds)} and ${orNone(money, compact)} ${currency} for ${compact(tokens)} tokens`,
  );
  return `no law is about an MoE that is trained on; of ${name}, ${costs.join("; ")}.`;
}

/** The words with a capital first letter. */
export const capital = (words: string): string => words.charAt(0).toUpperCase() + words.slice(1);

const size3 = (nats: number): string => fixed(Math.abs(nats), 3);
const side = (nats: number): string => (nats < 0 ? "below" : "above");

/** `0.076 nats below`, `0.103 below to 0.024 above`, `= ... within 0.002`: how one model stands to the other. */
function standing({ basis, difference, interval, verdict }: Comparison): string {
  if (basis === "published" && interval !== null) {
    const { low, high } = interval;
    if (low < 0 === high < 0) {
      const [near, far] = low < 0 ? [high, low] : [low, high];
      return `${size3(near)} to ${size3(far)} nats ${side(near)}`;
    }
    return `between ${size3(low)} nats below and ${size3(high)} above`;
  }
  if (verdict === "tie") return `equal within ${within(difference)} nats to`;
  const doubt = verdict === "open" && interval !== null ? ` (${signed(interval.low)} to ${signed(interval.high)})` : "";
  return `${size3(difference)} nats${doubt} ${side(difference)}`;
}

const signed = (nats: number): string => `${nats < 0 ? "−" : "+"}${size3(nats)}`;
/** A bound of a tie, rounded up. */
export const within = (nats: number): string => fixed(Math.max(0.001, Math.ceil(1000 * Math.abs(nats)) / 1000), 3);

const leads: Readonly<Record<ArmId, string>> = {
  dense: "train the dense model on",
  upcycled: "upcycle",
  scratch: "start from scratch",
};

/** Whether the upcycled model and the one from scratch are alike, and both ahead of the dense one. */
const isTied = ({ equalTokens, equalFlops, scratch }: Answer): boolean =>
  scratch.verdict === "tie" && equalTokens.verdict === "lower" && equalFlops.verdict === "lower";

/** What is known where no law answers. */
function openHeadline({ equalTokens: { interval } }: Answer): string {
  if (interval === null) return "No verdict";
  if (interval.high < 0) return "No verdict: published runs favour upcycling";
  if (interval.low > 0) return "No verdict: published runs favour dense training";
  return "No verdict: upcycling may win or lose against dense training";
}

/** What to do where a law answers. */
function verdictHeadline(answer: Answer): string {
  const names = answer.ahead.map((id) => leads[id]).join(" or ");
  const close = answer.ahead.length > 1 && !isTied(answer) ? ", too close to call" : "";
  return `${capital(names)}${close}`;
}

/** How the upcycled model stands to both others where a law answers. */
function verdictWords(answer: Answer, plan: Plan): string {
  const { equalTokens, equalFlops, scratch } = answer;
  const tokens = compact(equalTokens.one.tokens);
  const flops = `at equal FLOPs (dense with ${compact(equalFlops.other.tokens)})`;
  const upcycled = `upcycled ${plan.main ?? ""}`;
  if (isTied(answer)) {
    return (
      `after ${tokens} tokens ${upcycled} = from scratch within ${within(scratch.difference)} nats, both ` +
      `${size3(equalTokens.difference)} below continued dense at equal tokens and ${size3(equalFlops.difference)} ` +
      `below it ${flops}.${doubtWords(answer, plan)}`
    );
  }
  return (
    `after ${tokens} tokens ${upcycled} is ${standing(equalTokens)} continued dense at equal tokens ` +
    `and ${standing(equalFlops)} it ${flops}, and ${standing(scratch)} a mixture from scratch.` +
    doubtWords(answer, plan)
  );
}

/** Which of several to take that end alike by the laws. */
function tieAdvice({ ahead, equalTokens }: Answer, { recipes, main }: Plan): string {
  if (ahead.length < 2) return "";
  if (ahead.includes("dense"))
    return "Of those that end alike, take the dense model: it has the fewest parameters to keep and to serve.";
  const sunk = recipes.find(({ name }) => name === main)?.sunk;
  const star = sunk?.outcome === "at" ? sunk.tokens : null;
  if (sunk?.outcome === "always-ahead" || (star !== null && star >= equalTokens.one.tokens)) {
    const until = star === null ? "" : `, until D* = ${compact(star)}`;
    return `Of the two, upcycle: by the laws it is ahead at every smaller number of tokens${until}.`;
  }
  const since = star === null ? "" : `, from D* = ${compact(star)} on`;
  return `Of the two, start from scratch: by the laws it is ahead at every larger number of tokens${since}.`;
}

/** What a verdict leaves in doubt: which of two that are alike ends lower, and how large the gap to the other is. */
function doubtWords({ equalTokens, scratch, ahead }: Answer, { level }: Plan): string {
  const [comparison, name] = ahead.join() === "scratch" ? [scratch, "scratch"] : [equalTokens, "dense"];
  const { interval, verdict } = comparison;
  const isClear = interval !== null && (verdict === "lower" || verdict === "higher");
  const which = ahead.length === 2 ? ["which of the two ends lower"] : [];
  const gap = isClear ? [`the gap to ${name}, ${gapWords(interval)} nats at equal tokens (${percent(level)})`] : [];
  const parts = [...which, ...gap];
  return parts.length === 0 ? "" : ` In doubt: ${parts.join("; ")}.`;
}

/** `0.048 to 0.103`: the sizes of an interval on one side of zero. */
function gapWords({ low, high }: Interval): string {
  return low < 0 ? `${size3(high)} to ${size3(low)}` : `${size3(low)} to ${size3(high)}`;
}

/** What each arm reaches, where the budget buys them different numbers of tokens. */
function budgetWordsOf({ arms, main }: Plan): string {
  const concerned = arms.filter(({ recipe }) => recipe === null || recipe === main);
  const counts = new Set(concerned.map(({ tokens }) => tokens));
  if (counts.size < 2) return "";
  const parts = concerned.map(
    ({ label, loss, tokens }) => `${label} ${orNone(loss, loss4)} with ${orNone(tokens, compact)} tokens`,
  );
  return `The budget buys ${parts.join(", ")}.`;
}

/** Where no law answers: what published comparisons say. */
function openWords({ equalTokens, equalFlops }: Answer, { main }: Plan): string {
  const tokens = compact(equalTokens.one.tokens);
  const published = equalTokens.basis === "published";
  const subject = published ? "published comparisons put" : "the laws put";
  return (
    `${subject} the loss of upcycled ${main ?? ""} ${standing(equalTokens)} continued dense at equal tokens ` +
    `(${tokens}) and ${standing(equalFlops)} it at equal FLOPs (dense with ${compact(equalFlops.other.tokens)}).`
  );
}

/** How many published comparisons found the upcycled model better, against each of the two others. */
function ordersWords({ equalTokens, scratch }: Answer): string {
  const parts = [equalTokens, scratch].flatMap(({ published, other }) => {
    if (published === null) return [];
    const { better, alike, worse } = published.orders;
    const counts = [
      `${better} found it better`,
      ...(alike === 0 ? [] : [`${alike} alike`]),
      ...(worse === 0 ? [] : [`${worse} worse`]),
    ];
    const name = other.id === "dense" ? "continued dense" : "from scratch";
    return [`of ${better + alike + worse} with ${name} ${counts.join(", ")}`];
  });
  const counts = parts.length === 0 ? "" : ` Published comparisons of an upcycled model: ${parts.join("; ")}.`;
  return `Against a mixture from scratch it is ${standing(scratch)}${scratch.verdict === "tie" ? " it" : ""}.${counts}`;
}

/** Why no law answers. */
function whyOpen({ outside, clamped, equalTokens }: Answer, { parentLoss, validFrom }: Plan): string {
  // What is hardly outside is worth a word only where nothing else is.
  const far = outside.filter(({ factor }) => factor >= 1.2);
  const reasons = (far.length === 0 && !clamped ? outside : far).map(
    ({ what, value, factor, above }) =>
      `${what} = ${compact(value)} is ${compact(factor, 2)} times ${above ? "beyond" : "below"} what the laws were ` +
      "fitted on",
  );
  if (clamped) {
    const from = validFrom === null ? "" : ` and passes it only at ${compact(validFrom)}`;
    reasons.push(
      `at ${compact(equalTokens.one.tokens)} further tokens the upcycled law lies above its own parent ` +
        `(${orNone(parentLoss, loss4)})${from}`,
    );
  }
  return `The laws do not answer: ${reasons.join("; ")}.`;
}

/** Which measurement would narrow the interval. */
function narrowingWords({ narrowing, equalTokens }: Answer, { main, level }: Plan): string {
  if (narrowing === null) return "";
  const nats = (share: number): string => fixed(share * equalTokens.loss, 3);
  return (
    `What would narrow it: train the dense model and upcycled ${main ?? ""} for ${compact(narrowing.tokens)} tokens ` +
    `each and compare; the ${percent(level)} interval of ± ${nats(narrowing.before)} nats would shrink to about ` +
    `± ${nats(narrowing.after)}.`
  );
}

/** How sure the verdict is: D*, draws and assumptions. */
function certaintyWords(plan: Plan): string {
  const { best, main, recipes } = plan;
  const catchUp = recipes.find(({ name }) => name === main)?.sunk;
  const lowest = best === null ? "" : at(plan.arms, best.arm).label;
  return [catchUpSentence(catchUp), shareWords(lowest, best?.share ?? null), sensitivityWords(plan)]
    .filter((text) => text !== "")
    .join(" ");
}

/** How the answers stood to published comparisons that were left out of them. */
export function backtestWords({ backtest }: Plan): string {
  if (backtest.length === 0) return "";
  const count = (outcome: string): number => backtest.filter((row) => row.outcome === outcome).length;
  const fails = count("fails");
  return (
    `Back-test: of ${backtest.length} published comparisons, each left out, the answer holds for ${count("holds")}, ` +
    `leaves ${count("open")} open and ${fails === 0 ? "contradicts none" : `contradicts ${fails}`}.`
  );
}

/** Until when upcycling stays ahead. */
function catchUpSentence(catchUp: CatchUp | undefined): string {
  switch (catchUp?.outcome) {
    case undefined:
      return "";
    case "at":
      return (
        `Scratch catches up with the upcycled model at D* = ${orNone(catchUp?.tokens ?? null, compact)} tokens, the ` +
        "parent's training not counted."
      );
    case "always-ahead":
      return "Scratch never catches up within the laws, the parent's training not counted.";
    default:
      return "Scratch is ahead from the first token on.";
  }
}

/** How many draws of the laws agree on the arm with the lowest loss. */
function shareWords(label: string, share: number | null): string {
  return share === null ? "" : `The loss of ${label} is the lowest in ${percent(share)} of draws of the laws.`;
}

/** Which assumptions would change the best choice. */
function sensitivityWords({ sensitivity }: Plan): string {
  const assumptions = sensitivity
    .filter(({ decides }) => decides)
    .map(({ assumption }) => at(assumption.split(","), 0));
  return assumptions.length === 0
    ? "No single assumption of those varied below changes the choice."
    : `The choice hangs on: ${assumptions.join("; ")}.`;
}

/** How tokens and compute would best be split, in sentences. */
export function splitWords({ split, recipes, main, seen, size }: Plan): readonly string[] {
  const sentences: string[] = [];
  const first = recipes.find(({ name }) => name === main);
  if (first?.optimum != null) {
    const { size: best, tokens, loss } = first.optimum;
    const side = best > size ? "larger" : "smaller";
    sentences.push(
      `The compute of ${first.name}, with parents of any size that have seen D1 = ${compact(seen)} for ` +
        `nothing, is best spent on N = ${compact(best)} and D2 = ${compact(tokens)} (loss ${loss4(loss)}): ` +
        `${best / size > 1.25 || best / size < 0.8 ? `a ${side} parent than this one` : "about this size"}.`,
    );
  }
  if (split !== null) {
    sentences.push(
      `Were nothing trained yet: of ${compact(split.total)} tokens in all, ${percent(split.share)} dense and ` +
        `the rest upcycled would be best (${loss4(split.loss)}), and an MoE from scratch ` +
        `${split.scratch < split.loss ? "better still" : "worse"} (${loss4(split.scratch)}).`,
    );
  }
  return sentences;
}
