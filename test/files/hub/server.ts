import { valueAt } from "../../../src/base/at.js";
/** A Hub of a few models on this machine: the requests that the library makes, and the failures that a network has. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A running Hub. */
export interface FakeHub {
  readonly endpoint: string;
  /** `METHOD PATH RANGE` of every request so far. */
  readonly requests: string[];
  /** Bytes that were sent of each file, by `org/name/file`. */
  readonly sent: Map<string, number>;
  /** What may go wrong; tests set and reset it. */
  readonly trouble: Trouble;
  close(): Promise<void>;
}

/** What goes wrong with a Hub. */
export interface Trouble {
  /** Answers every request with this status, and this `X-Error-Code`. */
  status?: number | undefined;
  code?: string | undefined;
  /** Only this token may read. */
  token?: string | undefined;
  /** Breaks the line after so many bytes of a file, as often as `breaks` says. */
  breakAfter?: number | undefined;
  breaks?: number | undefined;
  /** Changes a byte of this file. */
  damage?: string | undefined;
  /** Sends whole files whatever part is asked for. */
  wholeOnly?: boolean | undefined;
  /** Answers stop in their midst, for downloads that are to be interrupted: all, or those of whole files alone. */
  slow?: boolean | "files" | undefined;
  /** Answers a request itself, and says so; else the request is answered as usual. */
  instead?: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;
}

/** The one commit of every model. */
export const commit = "0123456789abcdef0123456789abcdef01234567";

/** Files above this many bytes are kept as large files, with a SHA-256. */
const largeFrom = 1000;

/** Starts a Hub that has these files, by repository and name. */
export async function fakeHub(
  repositories: Readonly<Record<string, Readonly<Record<string, Uint8Array>>>>,
): Promise<FakeHub> {
  const requests: string[] = [];
  const sent = new Map<string, number>();
  const trouble: Trouble = {};
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const { pathname } = new URL(request.url ?? "", "http://hub");
    const range = request.headers.range ?? "";
    requests.push(`${request.method} ${pathname} ${range}`.trim());
    if (trouble.instead?.(request, response) === true) return;
    const fail = (status: number, code: string): void => {
      response
        .writeHead(status, { "content-type": "application/json", "x-error-code": code })
        .end(JSON.stringify({ error: code }));
    };
    const json = (value: unknown): void =>
      void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
    if (trouble.status !== undefined) return fail(trouble.status, trouble.code ?? "");
    if (trouble.token !== undefined && request.headers.authorization !== `Bearer ${trouble.token}`)
      return fail(request.headers.authorization === undefined ? 401 : 403, "GatedRepo");
    const [, api, repo, rest] = /^\/(api\/models\/)?([^/]+\/[^/]+)\/(.+)$/.exec(pathname) ?? [];
    const files = repo !== undefined && Object.hasOwn(repositories, repo) ? valueAt(repositories, repo) : null;
    if (files === null) return fail(404, "RepoNotFound");
    const [, revision] = /^revision\/([^/]+)$/.exec(api === undefined ? "" : (rest ?? "")) ?? [];
    if (revision !== undefined) {
      if (!["main", "v1", commit].includes(decodeURIComponent(revision))) return fail(404, "RevisionNotFound");
      return json({
        _id: "1",
        id: repo,
        sha: commit,
        private: false,
        downloads: 0,
        gated: false,
        likes: 0,
        lastModified: "2026-01-01T00:00:00Z",
      });
    }
    if (api !== undefined && rest === `tree/${commit}`)
      return json([
        { type: "directory", path: "onnx", oid: "0".repeat(40), size: 0 },
        ...Object.entries(files).map(listed),
      ]);
    const [, name] = new RegExp(`^resolve/${commit}/([^/]+)$`).exec(api === undefined ? (rest ?? "") : "") ?? [];
    if (name === undefined) return fail(404, "RepoNotFound");
    const content = Object.hasOwn(files, name) ? files[name] : undefined;
    if (content === undefined) return fail(404, "EntryNotFound");
    send(response, { repo: repo ?? "", name }, content, range);
  };

  function send(
    response: ServerResponse,
    { repo, name }: { readonly repo: string; readonly name: string },
    content: Uint8Array,
    range: string,
  ): void {
    const bytes = Uint8Array.from(content);
    if (trouble.damage === name) bytes.set([(bytes.at(-1) ?? 0) ^ 1], bytes.length - 1);
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(range) ?? [];
    const isProbe = range === "bytes=0-0";
    const part = first !== undefined && (trouble.wholeOnly !== true || isProbe);
    const [from, to] = part
      ? [Number(first), last === "" ? bytes.length : Math.min(bytes.length, Number(last) + 1)]
      : [0, bytes.length];
    const body = bytes.subarray(from, to);
    response.writeHead(part ? 206 : 200, {
      etag: `"${listed([name, content]).oid}"`,
      "content-length": body.length,
      ...(part ? { "content-range": `bytes ${from}-${to - 1}/${bytes.length}` } : {}),
    });
    const path = `${repo}/${name}`;
    if (!isProbe) sent.set(path, (sent.get(path) ?? 0) + body.length);
    const { breakAfter, breaks = 0 } = trouble;
    if (!isProbe && breakAfter !== undefined && breaks > 0 && body.length > breakAfter) {
      trouble.breaks = breaks - 1;
      response.write(body.subarray(0, breakAfter), () => setTimeout(() => response.destroy(), 20));
      return;
    }
    const isSlow = trouble.slow === true || (trouble.slow === "files" && !part);
    if (isSlow && !isProbe && body.length > largeFrom) {
      response.write(body.subarray(0, body.length / 2));
      return;
    }
    response.end(body);
  }

  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    sent,
    trouble,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** An entry of the Hub's list of files. */
export function listed([path, bytes]: [string, Uint8Array]): {
  type: string;
  path: string;
  oid: string;
  size: number;
  lfs?: object;
} {
  const oid = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  const lfs = { oid: createHash("sha256").update(bytes).digest("hex"), size: bytes.length, pointerSize: 130 };
  return { type: "file", path, oid, size: bytes.length, ...(bytes.length > largeFrom ? { lfs } : {}) };
}
