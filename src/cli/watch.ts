/** `upcycle watch` */
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { resultOf } from "../base/events.js";
import { duration, percent, rate } from "../base/format.js";
import type { RunState } from "../cluster/logs/monitor.js";
import { RunKeeper } from "../cluster/run/keep.js";
import { watchRun, type WatchEvent } from "../cluster/run/watch.js";
import { openContext } from "./context.js";
import { launchPlan } from "./launch.js";
import type { Terminal } from "./terminal.js";
import { quantity, webAddress, wholeNumber, withExample, withJson, type CommonFlags } from "./options.js";

interface WatchFlags extends CommonFlags {
  readonly once?: boolean;
  readonly stall?: number;
  readonly peak?: number;
  readonly webhook?: string;
  readonly restart?: string;
  readonly hardware?: string;
}

/** The command `watch` with its options and its help. */
export function watchCommand(): Command {
  const command = new Command("watch")
    .description("follow logs of Megatron-LM, Megatron Bridge or NeMo: losses, speed, what goes wrong")
    .argument("<log...>", "log files, or folders of .log, .out and .err files")
    .option("--once", "read what is there and end; exit code 1 if there were errors")
    .option("--stall <seconds>", "silence that counts as standing still (default: 600)", wholeNumber("--stall", 1))
    .option("--peak <flops>", "FLOP/s of one GPU, for the share of it that is used: 989T", quantity("--peak", 1e9))
    .option("--webhook <url>", "gets each alert as JSON by POST", webAddress)
    .option(
      "--restart <file>",
      "launch file of the run: starts it again from its last good checkpoint where it ended, stood still or diverged",
    )
    .option("--hardware <file>", "with --restart: as upcycle launch was given it")
    .action(execute);
  return withExample(
    withJson(command),
    "upcycle watch runs/moe/logs",
    "With --json every event is one line: what the log said, the run's state, alerts.",
  );
}

async function execute(names: string[], flags: WatchFlags): Promise<void> {
  const { once = false, stall, peak, webhook, json, restart, hardware } = flags;
  if (once && restart !== undefined)
    throw inputError("a run is kept going by a command that stays", { where: "--once", hint: "leave out --once" });
  const plan = restart === undefined ? null : await launchPlan(restart, hardware);
  const { terminal, signal } = openContext({ json, stopping: "" });
  let [errors, warnings] = [0, 0];
  const keeper = plan === null ? undefined : new RunKeeper({ plan });
  const watched = watchRun({ names, once, stallSeconds: stall, peak, webhook, signal, keeper });
  const state = await resultOf(watched, (event) => {
    if (event.type === "alert" && event.level === "error") errors++;
    if (event.type === "alert" && event.level === "warning") warnings++;
    if (json === true) terminal.json(event);
    else show(event, terminal);
  }).finally(() => keeper?.close());
  if (json !== true) {
    terminal.settle();
    terminal.out([stateLine(state), `${errors} errors, ${warnings} warnings`]);
  }
  if (once && errors > 0) process.exitCode = 1;
}

function show(event: WatchEvent, terminal: Terminal): void {
  if (event.type === "kept" || event.type === "undelivered") terminal.note(event.message);
  else if (event.type === "alert") terminal.note(`${event.level}: step ${event.iteration ?? "?"}: ${event.message}`);
  else if (event.type === "state") terminal.progress(stateLine(event.state));
  else if (event.event.type === "saved") terminal.note(`saved step ${event.event.iteration} to ${event.event.dir}`);
  else if (event.event.type === "validation") terminal.note(validationLine(event.event));
}

function stateLine({
  iteration,
  of,
  loss,
  losses,
  gradNorm,
  mfu,
  tflopsPerGpu,
  tokensPerSecond,
  secondsLeft,
}: RunState): string {
  const balance = losses["load_balancing_loss"];
  return [
    `step ${iteration}${of === null ? "" : ` of ${of}`}`,
    `loss ${loss === null || Number.isNaN(loss) ? "not a number" : loss.toFixed(4)}`,
    ...(balance === undefined ? [] : [`balance ${balance.toFixed(3)}`]),
    ...(gradNorm === null ? [] : [`gradient ${gradNorm.toPrecision(3)}`]),
    ...(tflopsPerGpu === null ? [] : [`${tflopsPerGpu.toFixed(0)} TFLOP/s`]),
    ...(mfu === null ? [] : [`${percent(mfu, 3)} of peak`]),
    ...(tokensPerSecond === null ? [] : [rate(tokensPerSecond)]),
    ...(secondsLeft === null ? [] : [`${duration(secondsLeft)} left`]),
  ].join("  ");
}

function validationLine({
  set,
  iteration,
  losses,
}: {
  set: string;
  iteration: number | null;
  losses: Readonly<Record<string, number>>;
}): string {
  const values = Object.entries(losses).map(([name, value]) => `${name} ${value.toFixed(4)}`);
  return `${set} at step ${iteration ?? "?"}: ${values.join(", ")}`;
}
