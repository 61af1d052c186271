/** Events of trainings and studies as lines for a terminal. */
import { bytes, duration, percent, rate } from "../base/format.js";
import type { MakeEvent, PlannedModel } from "../surgery/convert/make.js";
import type { StudyEvent } from "../study/run.js";
import { TimeLeft } from "../study/time-left.js";
import type { TrainEvent } from "../train/run.js";
import type { Terminal } from "./terminal.js";

/** What trainings do on Ctrl-C. */
export const savingWords = "finishing the step in hand and saving";

/** Smooths the speed over the last steps, so that the line does not flicker. */
const RECENT = 8;

/** Shows one training's events. `name` says which; `overall` adds the state of a larger whole. */
export function trainingView(terminal: Terminal, name: string): (event: TrainEvent, overall?: string) => void {
  let steps = 0;
  let perStep = 0;
  let recent: number[] = [];
  return (event, overall = "") => {
    switch (event.type) {
      case "open":
        steps = event.steps;
        perStep = event.tokensPerStep;
        recent = [];
        terminal.note(
          event.step === 0
            ? `${name}: ${steps} steps of ${perStep} tokens`
            : `${name}: going on after step ${event.step} of ${steps}`,
        );
        break;
      case "step": {
        recent = [...recent.slice(1 - RECENT), event.ms];
        const ms = recent.reduce((a, b) => a + b, 0) / recent.length;
        const eta = ((steps - event.step) * ms) / 1000;
        terminal.progress(
          `step ${event.step}/${steps}  ETA ${duration(eta)}${overall}  ${rate((perStep / ms) * 1000)}  loss ` +
            `${event.loss.toFixed(3)}`,
          name,
        );
        break;
      }
      case "eval":
        terminal.note(`${name}  step ${event.step}/${steps}  held-out loss ${event.loss.toFixed(4)}`);
        break;
      case "save":
      case "done":
        break;
    }
  };
}

/** Shows a study's events, with the time left for the whole, judged by the FLOPs still to do. */
export function studyView(terminal: Terminal, threads: number, now: () => number): (event: StudyEvent) => void {
  let run = "";
  let view = trainingView(terminal, "");
  const timeLeft = new TimeLeft(threads);
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
        if (event.run !== run) {
          run = event.run;
          view = trainingView(terminal, run);
        }
        began ??= now();
        if (event.event.type === "step") timeLeft.add(event.done - done, event.event.ms);
        done = event.done;
        const left = duration(timeLeft.seconds(event.total - done, now() - began));
        view(event.event, `  study ${Math.floor((100 * event.done) / event.total)} %, ${left} left`);
        break;
      }
    }
  };
}

/** Before this a speed says nothing yet. */
const paceAfterMs = 1000;

/** Shows a conversion or a merge: its warnings, then how far it is. */
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
