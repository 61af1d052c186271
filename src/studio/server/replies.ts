/** How the server reads requests and sends its answers: JSON, files, refusals. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { promisify } from "node:util";
import { gzip, gzipSync, type ZlibOptions } from "node:zlib";
import { inputError } from "../../base/errors.js";
import { safeHeaders } from "./guard.js";

/** Bytes of a request's body. */
const longestBody = 65_536;
/** Answers from this size on are compressed. */
const compressedFrom = 2048;

const compress = promisify<Buffer, ZlibOptions, Buffer>(gzip);

/** A file of the page. */
export interface StaticFile {
  /** Its type, and whether it may be kept. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  readonly compressed: Buffer;
}

/** A file of the page, ready to be sent. */
export const staticFile = (text: string, headers: Readonly<Record<string, string>>): StaticFile => ({
  headers,
  body: Buffer.from(text),
  compressed: gzipSync(text),
});

/** An answer as text, compressed when somebody first asks for it so. */
export class JsonText {
  readonly text: Buffer;
  #compressed: Promise<Buffer> | null = null;

  constructor(data: unknown) {
    this.text = Buffer.from(JSON.stringify(data));
  }

  /** It, compressed: the connection does not leave the machine, so speed counts more than size. */
  compressed(): Promise<Buffer> {
    this.#compressed ??= compress(this.text, { level: 1 });
    return this.#compressed;
  }
}

/** The body of a request, as JSON. Throws inputError for what is none, and for one that is too long. */
export async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > longestBody) throw inputError(`the request is longer than ${longestBody} bytes`, { where: "request" });
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8")) as unknown;
  } catch {
    throw inputError("the request is not JSON", { where: "request" });
  }
}

const takesGzip = (request: IncomingMessage): boolean =>
  /\bgzip\b/.test(String(request.headers["accept-encoding"] ?? ""));

/** Sends a file of the page. */
export function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  { headers, body, compressed }: StaticFile,
): void {
  const isSmall = takesGzip(request);
  const content = isSmall ? compressed : body;
  response.writeHead(200, {
    ...headers,
    "content-length": content.length,
    ...(isSmall ? { "content-encoding": "gzip" } : {}),
    vary: "accept-encoding",
  });
  response.end(request.method === "HEAD" ? undefined : content);
}

/** Sends an answer as JSON. */
export function json(request: IncomingMessage, response: ServerResponse, data: unknown, status = 200): void {
  sendJson(request, response, new JsonText(data), status).catch(() => response.destroy());
}

/** Sends an answer that is text already. */
export async function sendJson(
  request: IncomingMessage,
  response: ServerResponse,
  answer: JsonText,
  status: number,
): Promise<void> {
  const isCompressed = answer.text.length >= compressedFrom && takesGzip(request);
  // Other answers are made meanwhile.
  const content = isCompressed ? await answer.compressed() : answer.text;
  response.writeHead(status, {
    ...safeHeaders,
    "content-type": "application/json; charset=utf-8",
    "content-length": content.length,
    ...(isCompressed ? { "content-encoding": "gzip" } : {}),
    "cache-control": "no-store",
  });
  response.end(request.method === "HEAD" ? undefined : content);
}

/** Sends why there is no answer. */
export function refuse(response: ServerResponse, status: number, why: string): void {
  response.writeHead(status, {
    ...safeHeaders,
    "content-type": "text/plain; charset=utf-8",
    "cache-control": "no-store",
    connection: "close",
  });
  response.end(`${why}\n`);
}
