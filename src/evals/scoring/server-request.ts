/**
 * One request over HTTP. A long text of a large model on a slow server takes longer than the five minutes after which
 * `fetch` gives up, so the limit is the caller's.
 */
import { request as plainRequest, type IncomingMessage } from "node:http";
import { request as secureRequest } from "node:https";

/** What is sent. */
export interface Sent {
  /** Sent as it is by POST; left out, the request is a GET. */
  readonly body?: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds of silence after which the request ends. */
  readonly silenceMs: number;
}

/** What came back. */
export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** The server has sent nothing for as long as the request may wait. */
export class SilentServer extends Error {
  override readonly name = "SilentServer";
}

/** Sends a request and reads its answer. Rejects with SilentServer, or with what the connection says. */
export function ask(address: string, { body, headers, signal, silenceMs }: Sent): Promise<Answer> {
  const send = new URL(address).protocol === "https:" ? secureRequest : plainRequest;
  return new Promise((done, fail) => {
    const sized = body === undefined ? {} : { "content-length": String(Buffer.byteLength(body)) };
    const options = {
      method: body === undefined ? "GET" : "POST",
      headers: { ...headers, ...sized },
      ...(signal === undefined ? {} : { signal }),
      timeout: silenceMs,
    };
    const request = send(address, options, (response: IncomingMessage) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", fail);
      response.on("end", () => done({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") }));
    });
    request.on("timeout", () => request.destroy(new SilentServer("no answer")));
    request.on("error", fail);
    request.end(body);
  });
}
