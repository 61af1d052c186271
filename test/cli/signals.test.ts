import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { StopRequests, exitCodeOf, startedByNohup, stopSignals } from "../../src/cli/signals.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { writeText, writeTrainFile } from "./tiny.js";
import { start } from "./upcycle.js";

/** Requests with a clock of their own, and what came of them. */
function requests(): { readonly stop: StopRequests; readonly log: string[]; readonly clock: { now: number } } {
  const [log, clock] = [[] as string[], { now: 0 }];
  return {
    log,
    clock,
    stop: new StopRequests(
      (name) => void log.push(`end by ${name}`),
      () => clock.now,
    ),
  };
}

describe("signals that ask to stop", () => {
  it("have the exit codes that shells give them", () => {
    expect(stopSignals.map((name) => [name, exitCodeOf(name)])).toEqual([
      ["SIGINT", 130],
      ["SIGTERM", 143],
      ["SIGHUP", 129],
    ]);
  });

  it.each(stopSignals)("%s asks once and says the exit code; a later one ends at once", (name) => {
    const { stop, log, clock } = requests();
    stop.onFirst(() => log.push("asked"));
    expect(stop.exitCode).toBeNull();
    stop.receive(name);
    expect([log, stop.exitCode]).toEqual([["asked"], exitCodeOf(name)]);
    clock.now = 1000;
    stop.receive("SIGINT");
    expect([log, stop.exitCode]).toEqual([["asked", "end by SIGINT"], exitCodeOf(name)]);
  });

  it("end at once where another signal follows Ctrl-C", () => {
    const { stop, log } = requests();
    stop.receive("SIGINT");
    stop.receive("SIGTERM");
    expect(log).toEqual(["end by SIGTERM"]);
  });

  it.each([
    ["SIGINT", "SIGINT"],
    ["SIGHUP", "SIGHUP"],
    ["SIGHUP", "SIGTERM"],
    ["SIGTERM", "SIGHUP"],
  ] as const)(
    "count %s and a copy of it, %s right behind, as one: npx, shells and the end of a session send both",
    (first, copy) => {
      const { stop, log, clock } = requests();
      stop.receive(first);
      clock.now = 100;
      stop.receive(copy);
      expect([log, stop.exitCode]).toEqual([[], exitCodeOf(first)]);
      clock.now = 1000;
      stop.receive(copy);
      expect(log).toEqual([`end by ${copy}`]);
    },
  );

  it("reach who asks after they came, and not who has taken it back", () => {
    const { stop, log } = requests();
    stop.onFirst(() => log.push("gone"))();
    stop.receive("SIGHUP");
    stop.onFirst(() => log.push("late"));
    expect(log).toEqual(["late"]);
  });
});

describe("a command that nohup started is known", () => {
  const nothing = (): null => null;
  it.each([
    ["by the shell's name for the command", { _: "/usr/bin/nohup" }, nothing, true],
    [
      "by a standard input that can only be written to",
      { _: "/usr/bin/node" },
      () => ({ path: "/dev/null", writeOnly: true }),
      true,
    ],
    ["but not where input is /dev/null as usual", {}, () => ({ path: "/dev/null", writeOnly: false }), false],
    ["but not where there is no trace", {}, nothing, false],
  ] as const)("%s", (_, env, stdin, expected) => {
    expect(startedByNohup(env, stdin)).toBe(expected);
  });
});

const dir = temporaryFolder();
writeText(dir);
const long = { training: { steps: 100_000, saveEvery: 100_000, evalEvery: 100_000 } };
const savedStep = (run: string): number =>
  (JSON.parse(readFileSync(join(run, "last", "training.json"), "utf8")) as { step: number }).step;

describe.skipIf(process.platform === "win32")("a training", () => {
  it("that nohup started lives through SIGHUP and still stops on SIGTERM", async () => {
    const file = writeTrainFile(dir, "nohup.yaml", { out: join(dir, "nohup"), ...long });
    const running = start(["train", file], undefined, { env: { _: "/usr/bin/nohup" } });
    await running.saw("/100000  ETA");
    running.process.kill("SIGHUP");
    await sleep(100);
    running.process.kill("SIGTERM");
    const { code, stderr } = await running.outcome;
    expect(code, stderr).toBe(143);
    expect(savedStep(join(dir, "nohup"))).toBeGreaterThan(0);
  });

  const main = fileURLToPath(new URL("../../bin/upcycle.js", import.meta.url));
  const canOpenTerminal = spawnSync("script", ["-qec", "true", "/dev/null"], { stdio: "ignore" }).status === 0;

  it.skipIf(!canOpenTerminal)("whose terminal is gone goes on, and saves on SIGHUP with nobody to tell", async () => {
    const [run, rc] = [join(dir, "hung-up"), join(dir, "rc")];
    const file = writeTrainFile(dir, "hung-up.yaml", { out: run, ...long });
    const command = `trap '' HUP; ${process.execPath} ${main} train ${file}; echo $? > ${rc}`;
    const terminal = spawn("script", ["-qec", command, "/dev/null"], {
      env: { ...process.env, _: "" },
      stdio: ["ignore", "pipe", "ignore"],
    });
    let output = "";
    await new Promise<void>((resolve) =>
      terminal.stdout.on("data", (text: Buffer) => (output += text.toString()).includes("/100000  ETA") && resolve()),
    );
    const training = parseInt(readFileSync(join(run, ".lock"), "utf8"));
    terminal.kill("SIGKILL");
    // Time for some writes to nowhere.
    await sleep(300);
    process.kill(training, "SIGHUP");
    while (!existsSync(rc) || readFileSync(rc, "utf8") === "") await sleep(20);
    expect(readFileSync(rc, "utf8")).toBe("129\n");
    expect(savedStep(run)).toBeGreaterThan(1);
  });
});
