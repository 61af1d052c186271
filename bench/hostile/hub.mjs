/** A Hub of one model on this machine, and what may be wrong with it. */
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

export const commit = "0123456789abcdef0123456789abcdef01234567";
export const token = "hf_secretOfThisTest";
/** Files from this size on are listed as large files, with a SHA-256, as the Hub does. */
const LARGE = 1000;

const gitId = (bytes) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
const listed = ([path, bytes]) => ({
  type: "file",
  path,
  size: bytes.length,
  oid: gitId(bytes),
  ...(bytes.length >= LARGE && {
    lfs: { oid: createHash("sha256").update(bytes).digest("hex"), size: bytes.length, pointerSize: 130 },
  }),
});

/**
 * Serves the files of a folder as hf://org/tiny. `trouble({ request, response, path, kind, json, files })` comes first,
 * `kind` being "revision", "tree", or "file"; where it returns true it has answered. Returns { url, requests: [{ path,
 * range, authorization }] }.
 */
export async function hub(box, folder, trouble = () => false) {
  const files = Object.fromEntries(
    readdirSync(box.at(folder)).map((name) => [name, readFileSync(join(box.at(folder), name))]),
  );
  const requests = [];
  const url = await box.serve((request, response) => {
    const { pathname } = new URL(request.url, "http://hub");
    const { range = "", authorization } = request.headers;
    requests.push({ path: pathname, range, authorization });
    const json = (value, headers = {}) =>
      response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
    const kind =
      /^\/api\/models\/org\/tiny\/(revision|tree)\//.exec(pathname)?.[1] ??
      (/^\/org\/tiny\/resolve\//.test(pathname) ? "file" : "other");
    const list = Object.entries(files).map(listed);
    if (trouble({ request, response, path: pathname, range, kind, json, files, list })) return;
    if (kind === "revision")
      json({
        _id: "1",
        id: "org/tiny",
        sha: commit,
        private: false,
        downloads: 0,
        gated: false,
        likes: 0,
        lastModified: "2026-01-01T00:00:00Z",
      });
    else if (kind === "tree") json(list);
    else if (kind === "file" && Object.hasOwn(files, pathname.split("/").at(-1)))
      sendFile(response, files[pathname.split("/").at(-1)], range);
    else response.writeHead(404, { "content-type": "application/json", "x-error-code": "EntryNotFound" }).end("{}");
  });
  return { url, requests };
}

export function sendFile(response, bytes, range) {
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(range) ?? [];
  const [from, to] =
    first === undefined
      ? [0, bytes.length]
      : [Number(first), last === "" ? bytes.length : Math.min(bytes.length, Number(last) + 1)];
  response
    .writeHead(first === undefined ? 200 : 206, {
      etag: `"${listed(["", bytes]).lfs?.oid ?? gitId(bytes)}"`,
      "content-length": to - from,
      ...(first !== undefined && { "content-range": `bytes ${from}-${to - 1}/${bytes.length}` }),
    })
    .end(bytes.subarray(from, to));
}
