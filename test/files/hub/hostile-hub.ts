/**
 * A Hub that is up to something, broken, or not what it seems, with a stranger beside it, for the tests of what a
 * download does then. No message of any failure may show the token or a password.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Server as SocketServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { fetchModel, type FetchOptions } from "../../../src/files/hub/fetch.js";
import { temporaryFolder } from "../io/temporary.js";
import { fakeHub, listed, type FakeHub } from "./server.js";

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export const root = temporaryFolder();
export const token = "hf_secretOfTheUser";
export const weights = text("w".repeat(200_000));
/** The files of the model `org/tiny`. */
export const files = { "config.json": text("{}"), "model.safetensors": weights, "tokenizer.json": text("[]") };
/** Name of the weights in the cache. */
export const weightsChecksum = createHash("sha256").update(weights).digest("hex");

/** The Hub that has the model; `trouble` makes it hostile. */
export let hub: FakeHub;
/** Another host: another port is another origin. */
export let stranger: Stranger;
/** What the downloads of this test have told the user. */
export let notes: string[] = [];
export let cacheDir = "";

interface Stranger {
  readonly origin: string;
  /** The requests so far. */
  readonly requests: { url: string; authorization: string | undefined; cookie: string | undefined }[];
  reply: Handler;
  readonly server: Server;
}

let cacheCount = 0;

/** Takes an empty cache from now on. */
export function newCache(): void {
  cacheDir = join(root, String(cacheCount++));
}

const emptyList: Handler = (_, response) => void response.end("[]");

/** Starts both servers for a test file; every test begins with a Hub without trouble and an empty cache. */
export function useHostileHub(): void {
  beforeAll(async () => {
    hub = await fakeHub({ "org/tiny": files });
    stranger = await startStranger();
  });
  afterAll(async () => {
    stranger.server.closeAllConnections();
    stranger.server.close();
    await hub.close();
  });
  beforeEach(() => {
    for (const key of Object.keys(hub.trouble) as (keyof typeof hub.trouble)[]) hub.trouble[key] = undefined;
    hub.requests.length = 0;
    stranger.requests.length = 0;
    stranger.reply = emptyList;
    notes = [];
    newCache();
  });
}

async function startStranger(): Promise<Stranger> {
  const requests: Stranger["requests"] = [];
  const server = createServer((request, response) => {
    const { authorization, cookie } = request.headers;
    requests.push({ url: urlOf(request), authorization, cookie });
    stranger.reply(request, response);
  });
  return { origin: await listen(server), requests, reply: emptyList, server };
}

/** Starts a server on this machine and returns its address. */
export async function listen(server: SocketServer): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

type Options = FetchOptions & { readonly endpoint?: string; readonly unusedProxy?: string; readonly secret?: string };

/** Downloads `org/tiny` into the cache. */
export function get({
  endpoint = hub.endpoint,
  unusedProxy,
  secret = token,
  limits,
  ...rest
}: Options = {}): Promise<string> {
  return fetchModel("hf://org/tiny", {
    settings: { endpoint, cacheDir, token: secret, offline: false, unusedProxy },
    limits: { retryMs: 1, stallMs: 5000, ...limits },
    onEvent: (event) => {
      if (event.type === "note") notes.push(event.text);
    },
    ...rest,
  });
}

/** The error of a download, which is of one line and shows no secret. */
export async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UpcycleError);
  const { line, stack = "" } = error as UpcycleError;
  expect(line).not.toContain("\n");
  for (const words of [line, stack, ...notes]) expect(words).not.toMatch(/secret|swordfish/i);
  return error as UpcycleError;
}

/** Expects the folder to hold the whole model. */
export function expectWhole(dir: string): void {
  for (const [name, content] of Object.entries(files))
    expect(readFileSync(join(dir, name)).equals(content), name).toBe(true);
}

export const host = (): string => new URL(hub.endpoint).host;
export const repoDir = (): string => join(cacheDir, "models--org--tiny");
/** The part of the weights that a download has left. */
export const partial = (): string => join(repoDir(), "blobs", `${weightsChecksum}.incomplete`);

/** The address of a request below its host. */
export const urlOf = ({ url = "" }: IncomingMessage): string => url;
export const isTree = (request: IncomingMessage): boolean => urlOf(request).includes("/tree/");
export const isInfo = (request: IncomingMessage): boolean => urlOf(request).includes("/revision/");
export const isFile = (request: IncomingMessage, name = "model.safetensors"): boolean =>
  urlOf(request).includes("/resolve/") && urlOf(request).endsWith(`/${name}`);

/** Answers the requests that `which` picks; the Hub answers all others as usual. */
export function only(
  which: (request: IncomingMessage) => boolean,
  handler: Handler,
): (request: IncomingMessage, response: ServerResponse) => boolean {
  return (request, response) => {
    if (!which(request)) return false;
    handler(request, response);
    return true;
  };
}

/** The model's files as the Hub lists them. */
export const entries = (): ReturnType<typeof listed>[] => Object.entries(files).map(listed);

export function json(response: ServerResponse, value: unknown, headers = {}): void {
  response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
}

export function text(words: string): Uint8Array {
  return new TextEncoder().encode(words);
}
