// The studio as a process of its own, asked over HTTP as its page asks it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect } from "node:net";

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Programs that were started and have not ended: they end with this one, however that ends. */
const running = new Set();
/** Ends all of them at once. */
export function endAll() {
  for (const child of running) {
    child.kill("SIGCONT");
    child.kill("SIGKILL");
  }
}
process.on("exit", endAll);
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));

/** Waits until something holds; throws where a program that it depends on has ended, or where it takes minutes. */
export async function untilTrue(what, child, condition, everyMs = 100) {
  const end = performance.now() + 300_000;
  while (!(await condition())) {
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`${what}: its program has ended with ${child.exitCode ?? child.signalCode}`);
    if (performance.now() > end) throw new Error(`${what}: not so after five minutes`);
    await sleep(everyMs);
  }
}

/** Starts a program. */
export function start(program, words, options) {
  const child = spawn(program, words, options);
  running.add(child);
  child.on("exit", () => running.delete(child));
  return child;
}

/** A page asks over connections that stay open; the program's own start does not count. */
const agent = new Agent({ keepAlive: true, maxSockets: 6 });

/** Status, headers and size of an answer, and its text where `isText`. */
export function get(port, path, { cookie = "", isText = false } = {}) {
  return new Promise((done, failed) => {
    const headers = { cookie, accept: "application/json", "accept-encoding": isText ? "identity" : "gzip" };
    const asked = request({ host: "127.0.0.1", port, path, headers, agent }, (response) => {
      let [size, text] = [0, ""];
      response.on("data", (chunk) => {
        size += chunk.length;
        if (isText) text += chunk;
      });
      response.on("end", () => done({ status: response.statusCode, headers: response.headers, size, text }));
      response.on("error", failed);
    });
    asked.on("error", failed);
    asked.end();
  });
}

/**
 * Asks over one connection, one question after another, with as little work for this process as there can be: it may
 * play a page while a training on the same cores is measured. Texts of answers that are not compressed.
 */
function plainConnection(port, cookie) {
  const socket = connect(port, "127.0.0.1").setNoDelay(true);
  const head = `HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncookie: ${cookie}\r\n\r\n`;
  let text = "";
  /** @type {(body: string) => void} */
  let take = () => undefined;
  socket.setEncoding("latin1").on("data", (chunk) => {
    text += chunk;
    const end = text.indexOf("\r\n\r\n");
    if (end < 0) return;
    const length = Number(/^content-length: (\d+)/im.exec(text.slice(0, end))?.[1]);
    if (text.length < end + 4 + length) return;
    const body = text.slice(end + 4, end + 4 + length);
    text = "";
    take(body);
  });
  socket.on("error", () => undefined);
  /** @type {Promise<any>} */
  let last = Promise.resolve();
  const ask = (path) => {
    last = last.then(
      () =>
        new Promise((done) => {
          take = done;
          socket.write(`GET ${path} ${head}`);
        }),
    );
    return last;
  };
  return { ask, close: () => socket.destroy() };
}

/**
 * Milliseconds for which all threads of a process have had a processor, and for which they have waited for one, to the
 * microsecond. Linux.
 */
export function processorTimes(pid) {
  const times = readdirSync(`/proc/${pid}/task`).map((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ", 2),
  );
  const total = (column) => times.reduce((sum, words) => sum + Number(words[column]) / 1e6, 0);
  return { used: total(0), waited: total(1) };
}

/** Milliseconds of processor time that all threads of a process have used. */
export const processorMs = (pid) => processorTimes(pid).used;

/** Milliseconds of processor time that a process has used, and the most memory that it has had, in megabytes. Linux. */
export function used(pid) {
  const words = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  const peak = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return { cpuMs: 10 * (Number(words[11]) + Number(words[12])), peakMb: (1024 * Number(peak)) / 1e6 };
}

/** Starts the studio of a folder; `flags` are Node's own, such as --cpu-prof, `words` the command's. */
export async function openStudio(dir, { flags = [], words: more = [] } = {}) {
  const words = [...flags, "bin/upcycle.js", "studio", dir, "--no-open", "--json", ...more];
  const started = performance.now();
  const child = start(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
  const line = await new Promise((done, failed) => {
    let said = "";
    child.stdout.on("data", (chunk) => {
      said += chunk;
      if (said.includes("\n")) done(said.split("\n", 1)[0]);
    });
    child.on("exit", (code) => failed(new Error(`the studio has ended with ${code}`)));
  });
  const { url, port } = JSON.parse(line);
  const startMs = performance.now() - started;
  const welcome = await get(port, `/${new URL(url).search}`);
  const cookie = welcome.headers["set-cookie"][0].split(";")[0];
  const ask = (path, options = {}) => get(port, path, { cookie, ...options });
  const json = async (path) => JSON.parse((await ask(path, { isText: true })).text);
  return {
    url,
    port,
    cookie,
    child,
    pid: child.pid,
    startMs,
    started,
    ask,
    json,
    /** Waits until all logs are read. */
    async isRead() {
      while ((await json("/api/runs")).unread > 0) await sleep(10);
    },
    connection: () => plainConnection(port, cookie),
    /** Listens as a page does; calls back for every event. */
    listen(onEvent) {
      const asked = request({ host: "127.0.0.1", port, path: "/api/events", headers: { cookie } }, (response) =>
        response.on("data", onEvent),
      );
      asked.on("error", () => undefined);
      asked.end();
      return () => asked.destroy();
    },
    async close() {
      child.kill("SIGINT");
      await once(child, "exit");
    },
  };
}
