/** Events of trainings, studies and conversions as lines for a terminal. */
import { bytes, duration, percent, rate } from "../base/format.js";
import { meanOf } from "../base/mean.js";
import { unseenWords } from "../model/results/collapse.js";
import type { MakeEvent, PlannedModel } from "../surgery/convert/make.js";
import type { StudyEvent } from "../study/run.js";
import { TimeLeft } from "../study/time-left.js";
import type { RunResult, TrainEvent } from "../train/run.js";
import type { Terminal } from "./terminal.js";

/** What trainings do on Ctrl-C. */
export const savingWords = "finishing the step in hand and saving";

/** The speed is that of so many last steps, so that the line does not flicker. */
const RECENT_STEPS = 8;

/** "490,000 tok/s, 34 % of the GPU's peak (model FLOPs)"; without the share where no peak is known. */
export function peakWords({ tokensPerSecond, mfu }: Pick<RunResult, "tokensPerSecond" | "mfu">): string {
  const share = mfu === null ? "" : `, ${percent(mfu)} of the GPU's peak (model FLOPs)`;
  return `${rate(tokensPerSecond)}${share}`;
}

/** Shows one training's events. `name` says which training; `overall` adds the state of a larger whole. */
export function trainingView(terminal: Terminal, name: string): (event: TrainEvent, overall?: string) => void {
  let steps = 0;
  let tokensPerStep = 0;
  let recentMs: number[] = [];
  return (event, overall = "") => {
    switch (event.type) {
      case "open":
        ({ steps, tokensPerStep } = event);
        recentMs = [];
        terminal.note(
          event.step === 0
            ? `${name}: ${steps} steps of ${tokensPerStep} tokens`
            : `${name}: going on after step ${event.step} of ${steps}`,
        );
        break;
      case "step": {
        recentMs = [...recentMs.slice(1 - RECENT_STEPS), event.ms];
        const ms = meanOf(recentMs);
        const eta = ((steps - event.step) * ms) / 1000;
        terminal.progress(
          `step ${event.step}/${steps}  ETA ${duration(eta)}${overall}  ${rate((tokensPerStep / ms) * 1000)}  loss ` +
            `${event.loss.toFixed(3)}`,
          name,
        );
        break;
      }
      case "eval":
        terminal.note(`${name}  step ${event.step}/${steps}  held-out loss ${event.loss.toFixed(4)}`);
        if (event.unseenCollapse !== undefined) terminal.note(`${name}  warning: ${unseenWords(event.unseenCollapse)}`);
        break;
      case "save":
      case "done":
        break;
    }
  };
}

/** Shows a study's events, with the time left for the whole, judged by the FLOPs still to do. */
export function studyView(
  terminal: Terminal,
  { threads, jobs }: { readonly threads: number; readonly jobs: number },
  now: () => number,
): (event: StudyEvent) => void {
  // Several trainings may be under way.
  const views = new Map<string, ReturnType<typeof trainingView>>();
  const timeLeft = new TimeLeft(threads * jobs);
  let began: number | undefined;
  let done = 0;
  return (event) => {
    switch (event.type) {
      case "phase":
        terminal.note(event.label);
        break;
      case "note":
        terminal.note(`  ${event.text}`);
        break;
      case "train": {
        const { run } = event;
        const view = views.get(run) ?? trainingView(terminal, run);
        views.set(run, view);
        began ??= now();
        if (event.event.type === "step") timeLeft.add(event.done - done, event.event.ms / jobs);
        done = event.done;
        const percentage = Math.floor((100 * event.done) / event.total);
        const left = duration(timeLeft.seconds(event.total - done, now() - began));
        view(event.event, `  study ${percentage} %, ${left} left`);
        if (event.event.type === "done" && event.event.result.mfu !== null)
          terminal.note(`${run}  ${peakWords(event.event.result)}`);
        break;
      }
    }
  };
}

/** Milliseconds before which a speed says nothing yet. */
const paceAfterMs = 1000;

/** Shows a conversion or a merge: first its warnings, then how far it is. */
export function conversionView(
  terminal: Terminal,
  doing = "converting",
  now = (): number => performance.now(),
): (event: MakeEvent<PlannedModel>) => void {
  let first: number | undefined;
  return (event) => {
    switch (event.type) {
      case "planned":
        for (const warning of event.warnings) terminal.note(`warning: ${warning}`);
        break;
      case "resumed":
        terminal.note(
          `going on where it was interrupted: ${percent(event.done / event.total, 3)} of ${bytes(event.total)} ` +
            "are there",
        );
        break;
      case "replaced":
        terminal.note(
          `an unfinished conversion to the same folder was removed (${event.name}: another source, other ` +
            "settings or another version)",
        );
        break;
      case "progress": {
        const { done, total, bytesPerSecond, tensor } = event;
        first ??= now();
        // The first parts wait for files to be opened and threads to start.
        const pace =
          now() - first < paceAfterMs
            ? ""
            : `  ${bytes(bytesPerSecond)}/s  ETA ${duration((total - done) / bytesPerSecond)}`;
        terminal.progress(`${percent(done / total, 3)} of ${bytes(total)}${pace}  ${doing}`, tensor);
        break;
      }
    }
  };
}
