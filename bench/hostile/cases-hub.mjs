/** Servers that stall, drip, loop, lie, cut off, send bombs, or want to know the token. */
import { clearInterval, setInterval } from "node:timers";
import { gzipSync } from "node:zlib";
import { commit, hub, sendFile, token } from "./hub.mjs";

/** Longest that a silent server may be waited for, with all attempts. */
const PATIENCE = 150;

const bomb = () => gzipSync(Buffer.alloc(200_000_000, "[{}, "));

/** A case with a Hub of the small model; `trouble` as in `hub`. */
const of = (name, expect, trouble, { args = ["inspect", "hf://org/tiny"], ...options } = {}) => ({
  name: `hub: ${name}`,
  expect,
  ...options,
  make: async (b) => {
    b.copy("dense", "served");
    const { url } = await hub(b, "served", trouble);
    return { args, env: { HF_ENDPOINT: url } };
  },
});
const convert = { args: ["convert", "hf://org/tiny", "--recipe", "E2G1T1", "--out", "out", "--no-report"] };

/** A second server that must never see the token. */
const leaking = (name, lead, options = {}) => ({
  name: `hub: the token and ${name}`,
  expect: [0, 1, 2],
  may: /^out/,
  ...options,
  make: async (b) => {
    b.copy("dense", "served");
    const other = await hub(b, "served");
    const { url } = await hub(b, "served", lead(other.url));
    return {
      args: options.args ?? ["inspect", "hf://org/tiny"],
      env: { HF_ENDPOINT: url, HF_TOKEN: token },
      after: () =>
        other.requests
          .filter(({ authorization }) => authorization !== undefined)
          .map(({ path }) => `the token went to another host: ${path}`)
          .slice(0, 1),
    };
  },
});

export const cases = [
  of("never answers", [1, 2], () => true, { seconds: PATIENCE }),
  of("never answers where the files are asked for", [1, 2], ({ kind }) => kind === "tree", { seconds: PATIENCE }),
  of(
    "stalls in the middle of a file",
    [1, 2],
    ({ kind, response, path }) => {
      if (kind !== "file" || !path.endsWith(".safetensors")) return false;
      response.writeHead(200, { "content-length": 30000 });
      response.write(Buffer.alloc(1000));
      return true;
    },
    { ...convert, seconds: PATIENCE },
  ),
  of(
    "stalls in the middle of JSON",
    [1, 2],
    ({ kind, response }) => {
      if (kind !== "tree") return false;
      response.writeHead(200, { "content-type": "application/json" });
      response.write("[");
      return true;
    },
    { seconds: PATIENCE },
  ),
  {
    name: "hub: a connection that is taken and left silent",
    expect: [1, 2],
    seconds: PATIENCE,
    make: async (b) => ({
      args: ["inspect", "hf://org/tiny"],
      env: { HF_ENDPOINT: await b.serveRaw(() => undefined) },
    }),
  },
  {
    name: "hub: Ctrl-C while a server is silent",
    expect: [130],
    make: async (b) => ({
      args: ["inspect", "hf://org/tiny"],
      env: { HF_ENDPOINT: await b.serveRaw(() => undefined) },
      signals: [{ when: 3000, signal: "SIGINT" }],
    }),
  },
  of(
    "sends JSON for ever",
    [1, 2],
    ({ kind, response }) => {
      if (kind !== "tree") return false;
      response.writeHead(200, { "content-type": "application/json" });
      const more = () => response.destroyed || response.write("[".padEnd(65536)) || undefined;
      const timer = setInterval(more, 1);
      response.on("close", () => clearInterval(timer));
      response.write("[");
      return true;
    },
    { seconds: PATIENCE },
  ),
  of(
    "lists pages for ever",
    [1, 2],
    ({ kind, response, json, list, request }) => {
      if (kind !== "tree") return false;
      json(list, {
        link: `<http://${request.headers.host}/api/models/org/tiny/tree/${commit}?cursor=${Math.random()}>; rel="next"`,
      });
      return response.writableEnded;
    },
    { seconds: PATIENCE },
  ),
  of(
    "names itself as the next page",
    [1, 2],
    ({ kind, json, list, request }) => {
      if (kind !== "tree") return false;
      json(list, { link: `<http://${request.headers.host}${request.url}>; rel="next"` });
      return true;
    },
    { seconds: PATIENCE },
  ),
  of(
    "redirects in a circle",
    [1, 2],
    ({ response, request }) => response.writeHead(302, { location: request.url }).end() !== null,
  ),
  of("sends a gzip bomb as the list of files", [1, 2], ({ kind, response }) => {
    if (kind !== "tree") return false;
    response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" }).end(bomb());
    return true;
  }),
  of("sends a gzip bomb as the commit", [1, 2], ({ kind, response }) => {
    if (kind !== "revision") return false;
    response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" }).end(bomb());
    return true;
  }),
  of("sends a gzip bomb as config.json", [1, 2], ({ kind, path, response }) => {
    if (kind !== "file" || !path.endsWith("config.json")) return false;
    response.writeHead(200, { "content-encoding": "gzip" }).end(bomb());
    return true;
  }),
  of(
    "sends a file for ever",
    [1, 2],
    ({ kind, path, response }) => {
      if (kind !== "file" || !path.endsWith(".safetensors")) return false;
      response.writeHead(200);
      const timer = setInterval(() => response.write(Buffer.alloc(1 << 16)), 1);
      response.on("close", () => clearInterval(timer));
      return true;
    },
    { ...convert, seconds: 60 },
  ),
  of(
    "cuts every file off",
    [1, 2],
    ({ kind, response }) => {
      if (kind !== "file") return false;
      response.writeHead(200, { "content-length": 5000 });
      response.write(Buffer.alloc(100), () => response.destroy());
      return true;
    },
    { ...convert, seconds: PATIENCE },
  ),
  of("closes every connection at once", [1, 2], ({ response }) => response.destroy() !== null, { seconds: PATIENCE }),
  of(
    "knows no ranges",
    [0],
    ({ kind, path, response, files }) => {
      if (kind !== "file") return false;
      const name = path.split("/").at(-1);
      if (!Object.hasOwn(files, name)) return false;
      sendFile(response, files[name], "");
      return true;
    },
    { ...convert, may: /^out/ },
  ),
  of("knows no ranges where headers alone are read", [0, 1, 2], ({ kind, path, response, files }) => {
    const name = path.split("/").at(-1);
    if (kind !== "file" || !Object.hasOwn(files, name)) return false;
    sendFile(response, files[name], "");
    return true;
  }),
  of(
    "answers HTML",
    [1, 2],
    ({ response }) =>
      response
        .writeHead(200, { "content-type": "text/html" })
        .end("<html><body>Log in to the hotel's network</body></html>") !== null,
  ),
  of(
    "answers HTML instead of a file",
    [1, 2],
    ({ kind, response }) =>
      kind === "file" && response.writeHead(200, { "content-type": "text/html" }).end("<html>Log in</html>") !== null,
  ),
  of("answers 500 always", [1, 2], ({ response }) => response.writeHead(500).end("oops") !== null, {
    seconds: PATIENCE,
  }),
  of(
    "answers 429 and asks to wait for a year",
    [1, 2],
    ({ response }) => response.writeHead(429, { "retry-after": "31536000" }).end() !== null,
    { seconds: PATIENCE },
  ),
  of(
    "sends escape sequences in an error",
    [1, 2],
    ({ response }) =>
      response
        .writeHead(403, { "content-type": "application/json", "x-error-message": "no" })
        .end(JSON.stringify({ error: "\u001b[2J\u001b]0;owned\u0007\nupcycle: done" })) !== null,
  ),
  of(
    "names a commit that is a path",
    [1, 2],
    ({ kind, json }) => kind === "revision" && (json({ id: "org/tiny", sha: "../../../../etc" }), true),
  ),
  of(
    "lists files outside of the folder",
    [0, 1, 2],
    ({ kind, json, list }) =>
      kind === "tree" &&
      (json([
        ...list,
        { type: "file", path: "../../evil", size: 1, oid: commit },
        { type: "file", path: "/tmp/evil", size: 1, oid: commit },
      ]),
      true),
  ),
  of(
    "lists checksums that are paths",
    [1, 2],
    ({ kind, json, list }) =>
      kind === "tree" && (json(list.map((one) => ({ ...one, oid: "../../evil", lfs: undefined }))), true),
  ),
  of(
    "lists absurd sizes",
    [1, 2],
    ({ kind, json, list }) =>
      kind === "tree" &&
      (json(list.map((one) => ({ ...one, size: 1e300, ...(one.lfs && { lfs: { ...one.lfs, size: -5 } }) }))), true),
    convert,
  ),
  of(
    "lists half a million files",
    [0, 1, 2],
    ({ kind, json, list }) =>
      kind === "tree" &&
      (json([
        ...list,
        ...Array.from({ length: 500_000 }, (_, i) => ({ type: "file", path: `x${i}`, size: 1, oid: commit })),
      ]),
      true),
  ),
  of("lists no objects", [1, 2], ({ kind, json }) => kind === "tree" && (json([null, 1, "x", []]), true)),
  of(
    "answers JSON nested a million deep",
    [1, 2],
    ({ kind, response }) =>
      kind === "revision" &&
      response.writeHead(200, { "content-type": "application/json" }).end("[".repeat(1e6)) !== null,
  ),
  of(
    "sends other bytes than it announced",
    [1, 2],
    ({ kind, path, response, files }) => {
      if (kind !== "file" || !path.endsWith(".safetensors")) return false;
      sendFile(response, Buffer.alloc(files["model.safetensors"].length, 7), "");
      return true;
    },
    { ...convert, seconds: PATIENCE },
  ),
  leaking(
    "a next page on another host",
    (other) =>
      ({ kind, json, list }) =>
        kind === "tree" && (json(list, { link: `<${other}/api/models/org/tiny/tree/${commit}>; rel="next"` }), true),
  ),
  leaking(
    "a redirect to another host",
    (other) =>
      ({ request, response }) =>
        response.writeHead(302, { location: `${other}${request.url}` }).end() !== null,
  ),
  leaking(
    "a file that lies on another host",
    (other) =>
      ({ kind, request, response }) =>
        kind === "file" && response.writeHead(302, { location: `${other}${request.url}` }).end() !== null,
    { ...convert },
  ),
  leaking(
    "a next page at another name of the same address",
    (other) =>
      ({ kind, json, list }) =>
        kind === "tree" &&
        (json(list, {
          link: `<${other.replace("127.0.0.1", "localhost")}/api/models/org/tiny/tree/${commit}>; rel="next"`,
        }),
        true),
  ),
  { name: "hub: nobody listens", expect: [1, 2], seconds: 60, make: () => ["inspect", "hf://org/tiny"] },
  ...[
    "ftp://x",
    "javascript:alert(1)",
    "http://",
    "not an address",
    "http://127.0.0.1:99999",
    "http://[::1",
    "file:///etc/passwd",
  ].map((HF_ENDPOINT) => ({
    name: `hub: HF_ENDPOINT=${HF_ENDPOINT}`,
    expect: [2],
    make: () => ({ args: ["inspect", "hf://org/tiny"], env: { HF_ENDPOINT } }),
  })),
  ...["hf_", "no token", "hf_x\ny", "hf_\u001b[2J", "hf_é"].map((HF_TOKEN) => ({
    name: `hub: HF_TOKEN=${JSON.stringify(HF_TOKEN)}`,
    expect: [0, 1, 2],
    make: async (b) => (
      b.copy("dense", "served"),
      {
        args: ["inspect", "hf://org/tiny"],
        env: { HF_TOKEN, HF_ENDPOINT: (await hub(b, "served")).url },
        never: /hf_[xé]/,
      }
    ),
  })),
  ...[
    "hf://",
    "hf://..",
    "hf://../..",
    "hf://org/tiny@../..",
    "hf://org/..",
    "hf://org/tiny@",
    "hf://\u001b[2J/x",
    "hf://org/tiny/../../x",
    `hf://org/${"x".repeat(5000)}`,
    "HF://org/tiny",
    "hf://org/tiny+",
    "hf://org/tiny+../..",
  ].map((model) => ({
    name: `hub: the model ${JSON.stringify(model).slice(0, 60)}`,
    expect: [1, 2],
    make: async (b) => (
      b.copy("dense", "served"),
      { args: ["inspect", model], env: { HF_ENDPOINT: (await hub(b, "served")).url } }
    ),
  })),
  {
    name: "hub: a home for the cache that cannot be written",
    expect: [1, 2],
    make: async (b) => {
      b.copy("dense", "served");
      return {
        args: ["inspect", "hf://org/tiny"],
        env: { HF_ENDPOINT: (await hub(b, "served")).url, HF_HOME: "/proc/nothing" },
      };
    },
  },
  {
    name: "hub: a file in the place of the cache",
    expect: [1, 2],
    make: async (b) => {
      b.copy("dense", "served");
      b.file("hf", "mine");
      return {
        args: ["inspect", "hf://org/tiny"],
        env: { HF_ENDPOINT: (await hub(b, "served")).url, HF_HOME: b.at("hf") },
      };
    },
  },
  {
    name: "hub: a pipe in the place of a ref",
    expect: [0, 1, 2],
    make: async (b) => {
      b.copy("dense", "served");
      b.put("cache/models--org--tiny/refs/main", "fifo");
      b.put("cache/models--org--tiny/headers/refs/main", "fifo");
      return { args: ["inspect", "hf://org/tiny"], env: { HF_HUB_CACHE: b.at("cache") }, may: /^cache/ };
    },
  },
];
