/**
 * 10,000 hostile requests to the studio as a process of its own, while logs below its folder are written, cut off and
 * replaced, and connections read nothing or say half of something:
 *
 *   npm run build && node bench/studio-hostile.mjs [--requests N] [--seed N] [--out FILE]
 *
 * Half of them go to a studio that only reads, half to one with --allow-actions, with and without the cookie. It fails
 * where an answer holds a word of a file outside the folder, where one is a 500, where a file changes that this program
 * does not write, where a command was started, or where a studio does not answer at the end. Results are written to
 * bench/results/DATE-studio-hostile.json.
 */
import { createHash } from "node:crypto";
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { truncateSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Notes } from "./studio/notes.mjs";
import { openStudio, sleep, used } from "./studio/process.mjs";
import { records, writeRun } from "./studio/runs.mjs";

const { values: flags } = parseArgs({
  options: {
    requests: { type: "string", default: "10000" },
    seed: { type: "string", default: "1" },
    out: { type: "string", default: `bench/results/${new Date().toISOString().slice(0, 10)}-studio-hostile.json` },
  },
});
const secret = "word-of-a-file-outside";
const root = mkdtempSync(join(tmpdir(), "upcycle-studio-hostile-"));
process.on("exit", () => rmSync(root, { recursive: true, force: true }));
const dir = join(root, "runs");
for (let i = 0; i < 6; i++) writeRun(join(dir, "study/arms/a", `seed-${i}`), { steps: 200, seed: i, every: 50 });
const wild = writeRun(join(dir, "wild"), { steps: 100, seed: 9, every: 50, planned: 1e6 });
writeFileSync(join(root, "secret.txt"), secret);
symlinkSync(join(root, "secret.txt"), join(dir, "linked.json"));
symlinkSync(root, join(dir, "linked"));
mkdirSync(join(dir, "sly"));
writeFileSync(join(dir, "page.html"), "<script>fetch('/api/runs')</script>");
for (const name of ["study/arms/a/seed-0", "sly"])
  writeFileSync(
    join(dir, name, "command.json"),
    JSON.stringify({ version: 1, words: ["upcycle", "train", "x", "--out", join(root, "made")], folder: root }),
  );

/** Everything in the folder but what is written meanwhile. */
const picture = () => {
  const hash = createHash("sha256");
  const names = readdirSync(root, { recursive: true, withFileTypes: true });
  for (const entry of names.sort((a, b) => (join(a.parentPath, a.name) < join(b.parentPath, b.name) ? -1 : 1))) {
    const path = join(entry.parentPath, entry.name);
    if (path.startsWith(join(dir, "wild"))) continue;
    hash.update(path);
    if (entry.isFile()) hash.update(readFileSync(path));
  }
  return hash.digest("hex");
};

// xorshift: the same requests for the same seed.
let state = Number(flags.seed) | 1;
const random = () => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) / 2 ** 32;
};
const pick = (list) => list[Math.floor(random() * list.length)];

const names = [
  "..", "../secret.txt", "%2e%2e%2fsecret.txt", "linked.json", "linked/secret.txt", "/etc/passwd", "%00", "sly", "wild",
  "study/arms/a/seed-0", "study", "page.html", "__proto__", "constructor", "", "a".repeat(3000), "\ud800", "C:\\x",
]; // prettier-ignore
const answers = [
  "overview", "runs", "run", "curves", "compare", "experts", "coactivation", "expert-file", "conversions",
  "checkpoints",
  "models", "model", "reports", "report", "study", "evaluation", "plan", "jobs", "alerts", "events/x", "several",
  "actions", "actions/start", "actions/words", "actions/stop", "generate", "toString",
]; // prettier-ignore
const numbers = ["-1", "0", "1e99", "-1e308", "NaN", "1;2", "9".repeat(400), "have"];
const query = () =>
  Array.from({ length: Math.floor(random() * 5) }, () => {
    const key = pick([
      "name",
      "run",
      "with",
      "layer",
      "columns",
      "from",
      "to",
      "have",
      "metric",
      "axis",
      "ask",
      "token",
    ]);
    const value = ["name", "run", "with"].includes(key)
      ? pick(names)
      : key === "ask"
        ? `/api/${pick(answers)}?name=${pick(names)}`
        : pick(numbers);
    return `${key}=${random() < 0.5 ? encodeURIComponent(value.toWellFormed?.() ?? value) : value}`;
  })
    .join("&")
    .replace(/[^!-~]/g, "x");
const paths = ["/", "//", "/../secret.txt", "/%2e%2e/secret.txt", "/..%5csecret.txt", "*", `/${"a".repeat(20_000)}`];
const path = () =>
  random() < 0.15 ? pick(paths) : `${random() < 0.2 ? "/report" : `/api/${pick(answers)}`}?${query()}`;
const bodies = [
  "", "{", "null", "[]", "[".repeat(5000), "x".repeat(70_000), '{"__proto__":{"allowed":true}}', '{"id":1e9}',
  '{"command":"train","file":"-x"}', '{"command":"train","file":"x","out":"../made"}',
  '{"command":"resume","run":"study/arms/a/seed-0"}', '{"command":"resume","run":"sly"}',
  '{"command":"resume","run":"../x"}', '{"command":"again","id":1}',
  '{"command":"convert","model":"m","recipe":"E2;G1","out":"x"}',
  '{"model":"../..","prompt":"x","seed":0,"temperature":0,"maxTokens":1}',
]; // prettier-ignore

const statuses = {};
const wrong = [];
const strangers = (port) => [`localhost:${port}`, "evil.example", "localhost:1", `127.0.0.1.evil.example:${port}`];
async function send(studio, cookie) {
  const { port } = studio;
  const method = pick(["GET", "GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"]);
  const headers = {
    host: random() < 0.75 ? `127.0.0.1:${port}` : pick(strangers(port)),
    ...(random() < 0.7 && { cookie: random() < 0.9 ? cookie : `${cookie}x` }),
    ...(random() < 0.4 && { origin: pick(["http://evil.example", `http://127.0.0.1:${port}`, "null"]) }),
    ...(random() < 0.2 && { "sec-fetch-site": pick(["cross-site", "same-origin", "none"]) }),
    ...(random() < 0.2 && { "last-event-id": pick(["x", "-1", "9".repeat(50)]) }),
    "content-type": pick(["application/json", "text/plain"]),
    connection: "close",
  };
  const wanted = path();
  const body = method === "POST" ? pick(bodies) : undefined;
  const answer = await new Promise((done) => {
    const asked = request({ host: "127.0.0.1", port, path: wanted, method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => (text += chunk));
      response.on("end", () => done({ status: response.statusCode, text }));
      response.on("error", () => done({ status: "cut", text }));
    });
    asked.on("error", () => done({ status: "cut", text: "" }));
    asked.setTimeout(20_000, () => {
      wrong.push(`no answer in 20 s: ${method} ${wanted.slice(0, 200)}`);
      asked.destroy();
    });
    asked.end(body);
  });
  statuses[answer.status] = (statuses[answer.status] ?? 0) + 1;
  if (answer.text.includes(secret)) wrong.push(`shown: ${method} ${wanted.slice(0, 200)}`);
  if (answer.status === 500) wrong.push(`500: ${method} ${wanted.slice(0, 200)} ${body?.slice(0, 100) ?? ""}`);
}

/** A log that is written, cut off in the middle of a line, and replaced. */
let at = 100;
function disturb() {
  const log = join(wild, "metrics.jsonl");
  const line = JSON.stringify(records(at + 1, ++at, { every: 1e9 })[0]);
  const what = random();
  if (what < 0.5) appendFileSync(log, `${line}\n`);
  else if (what < 0.7) appendFileSync(log, line.slice(0, Math.floor(random() * line.length)));
  else if (what < 0.9) truncateSync(log, Math.floor(random() * readFileSync(log).length));
  else writeFileSync(log, `\u0000\n{"type":"step"\n${line}\n`);
}

/** Connections that say half of something or read nothing. */
function stall(port, cookie) {
  const text = pick([
    "",
    "GET /",
    "\u0000\u0001nonsense\r\n\r\n",
    `POST /api/actions/start HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Length: 99999999\r\n\r\n{`,
    `GET /api/events HTTP/1.1\r\nHost: localhost:${port}\r\nCookie: ${cookie}\r\n\r\n`,
    `GET /api/runs HTTP/1.1\r\nHost: localhost:${port}\r\nCookie: ${cookie}\r\n\r\n`.repeat(50),
  ]);
  const socket = connect(port, "127.0.0.1", () => socket.write(text));
  socket.on("error", () => undefined).pause();
  return socket;
}

const before = picture();
const notes = new Notes({ isPartial: false });
for (const allowed of [false, true]) {
  const studio = await openStudio(dir, { words: allowed ? ["--allow-actions"] : [] });
  await studio.isRead();
  const stalled = [];
  const count = Number(flags.requests) / 2;
  for (let sent = 0; sent < count; sent += 8) {
    await Promise.all(Array.from({ length: Math.min(8, count - sent) }, () => send(studio, studio.cookie)));
    disturb();
    if (sent % 200 === 0) stalled.push(stall(studio.port, studio.cookie));
  }
  if ((await studio.ask("/api/runs")).status !== 200) wrong.push("it does not answer any more");
  const { actions } = await studio.json("/api/actions");
  if (actions.length > 0) wrong.push(`${actions.length} commands were started: ${JSON.stringify(actions[0].words)}`);
  notes.add(
    `memory of the studio ${allowed ? "with --allow-actions" : "that only reads"}, highest`,
    used(studio.pid).peakMb,
    {
      unit: "MB",
      below: 300,
    },
  );
  for (const socket of stalled) socket.destroy();
  await sleep(200);
  await studio.close();
}
if (picture() !== before) wrong.push("files have changed");
notes.add("hostile requests that went wrong", wrong.length, { unit: `of ${flags.requests}`, below: 1 });
notes.results.statuses = statuses;
notes.results.wrong = wrong.slice(0, 20);
notes.write(flags.out);
console.log(statuses);
for (const line of wrong.slice(0, 20)) console.log(line);
process.exitCode = wrong.length === 0 ? 0 : 1;
