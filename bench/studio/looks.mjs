/**
 * What the studio does while a run gets a line every 50 ms and a page of it is open, counted, not timed:
 *
 *   npm run build && node bench/studio/looks.mjs [SECONDS] [--strace]
 *
 * Processor time of its process by threads and of whoever plays the page, how often its threads went to sleep or were
 * put off a processor, and with --strace its system calls by name.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { openStudio, sleep, start } from "./process.mjs";
import { addRecords, step, writeRun } from "./runs.mjs";
import { watchRun } from "./training.mjs";

const everyMs = 50;
const seconds = Number(process.argv.slice(2).find((word) => /^\d+$/.test(word)) ?? 30);
const root = mkdtempSync(join(tmpdir(), "upcycle-studio-looks-"));
process.on("exit", () => rmSync(root, { recursive: true, force: true }));

const log = writeRun(join(root, "run"), { steps: 400, seed: 0, every: 1e6, planned: 1e6 });
// Whoever has the lock is at work: this process stands for the training.
const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
writeFileSync(join(log, ".lock"), `${process.pid}\n${hostname()}\n${boot}\n`);

const studio = await openStudio(root);
await studio.isRead();
const close = await watchRun(studio);
let bytes = 0;
let events = 0;
const stop = studio.listen((chunk) => {
  bytes += chunk.length;
  events += String(chunk).split("\nevent: ").length - 1;
});

function times() {
  const [threads, found] = [{}, { sleeps: 0, putOff: 0 }];
  for (const id of readdirSync(`/proc/${studio.pid}/task`)) {
    const of = (file) => readFileSync(`/proc/${studio.pid}/task/${id}/${file}`, "utf8");
    const number = (name) => Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(of("status"))?.[1]);
    threads[id] = { name: of("comm").trim(), ms: Number(of("schedstat").split(" ")[0]) / 1e6 };
    found.sleeps += number("voluntary_ctxt_switches");
    found.putOff += number("nonvoluntary_ctxt_switches");
  }
  return { threads, ...found, client: process.cpuUsage(), bytes, events };
}

async function lines(count, from) {
  // The writer's own work stands in the client's time with and without the studio's changes alike.
  for (let i = 0; i < count; i++) {
    addRecords(log, [step(from + i, 1e6, 0)]);
    await sleep(everyMs);
  }
}

await lines(60, 401);
const tracer = process.argv.includes("--strace")
  ? start("strace", ["-f", "-c", "-p", String(studio.pid), "-o", join(root, "calls.txt")], { stdio: "ignore" })
  : null;
await sleep(tracer === null ? 0 : 500);
const before = times();
const count = Math.round((1000 * seconds) / everyMs);
await lines(count, 461);
const after = times();
if (tracer !== null) {
  tracer.kill("SIGINT");
  await new Promise((done) => tracer.on("exit", done));
}
const user = after.client.user - before.client.user + after.client.system - before.client.system;
const ms = Object.entries(after.threads).map(([id, { name, ms: now }]) => [name, now - (before.threads[id]?.ms ?? 0)]);
console.log(`${count} lines`);
console.log(`studio: ${ms.reduce((sum, [, one]) => sum + one, 0).toFixed(0)} ms of processors`);
for (const [name, one] of ms.filter(([, value]) => value >= 0.5)) console.log(`  ${name}: ${one.toFixed(1)} ms`);
console.log(
  `threads went to sleep ${after.sleeps - before.sleeps} times, were put off ${after.putOff - before.putOff} times`,
);
console.log(`events ${after.events - before.events}, bytes of them ${after.bytes - before.bytes}`);
console.log(`client and writer: ${(user / 1000).toFixed(0)} ms of processors`);
if (tracer !== null) console.log(readFileSync(join(root, "calls.txt"), "utf8"));
stop();
close();
await studio.close();
process.exit();
