/**
 * Who may ask: only the page that this server has sent to whoever started it. Every rule here is a pure function of the
 * request's head, so that many thousands of requests can be tried in a test.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";

/** The head of a request, as far as it decides. */
export interface RequestHead {
  readonly method: string;
  /** Path and query as they stand in the request. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** What is done with a request. */
export type Verdict =
  /** It may be answered. */
  | { readonly kind: "pass"; readonly path: string; readonly query: URLSearchParams }
  /** The token is right: it becomes a cookie, and disappears from the address. */
  | { readonly kind: "welcome" }
  | { readonly kind: "refused"; readonly status: 400 | 401 | 403 | 404 | 405 | 421; readonly why: string };

/** What the rules need to know. */
export interface GuardOptions {
  readonly token: string;
  /** Name of the cookie: cookies are not told apart by port, so the port is in it. */
  readonly cookie: string;
  readonly actions: boolean;
}

/** A token that nobody guesses. */
export const newToken = (): string => randomBytes(24).toString("base64url");

/** Longest path and query that are read. */
const longestUrl = 16_384;

/** Loopback by its names. The port may be another one: that of the near end of `ssh -L`. */
const loopback = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i;

const refused = (status: Extract<Verdict, { kind: "refused" }>["status"], why: string): Verdict => ({
  kind: "refused",
  status,
  why,
});

/** Whether two texts are equal, in a time that does not depend on where they differ. */
function isEqual(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** Judges a request by its head. Never throws. */
export function judge({ method, url, headers }: RequestHead, options: GuardOptions): Verdict {
  const host = single(headers["host"]);
  // Another name that leads here is that of a page of another site (DNS rebinding).
  if (host === null || !loopback.test(host)) return refused(421, "this host is not served here");
  const origin = headers["origin"];
  if (origin !== undefined && single(origin)?.toLowerCase() !== `http://${host.toLowerCase()}`)
    return refused(403, "requests of other sites are not answered");
  const site = headers["sec-fetch-site"];
  if (site !== undefined && !["same-origin", "none"].includes(single(site) ?? ""))
    return refused(403, "requests of other sites are not answered");
  if (url.length > longestUrl || !url.startsWith("/")) return refused(400, "this address is not understood");
  const [path = "", search = ""] = url.split(/\?(.*)/s, 2);
  // No answer has a name that needs any of these, so none is decoded.
  if (!/^\/[\w./-]*$/.test(path) || path.includes("..") || path.includes("//"))
    return refused(404, "there is nothing here");
  const query = new URLSearchParams(search);
  const given = query.get("token");
  if (method === "GET" && path === "/" && given !== null)
    return isEqual(given, options.token)
      ? { kind: "welcome" }
      : refused(401, "this token is not the one that was printed");
  const cookie = cookieOf(single(headers["cookie"]) ?? "", options.cookie);
  if (cookie === null || !isEqual(cookie, options.token))
    return refused(401, "open the address that the command upcycle studio has printed");
  if (method === "GET" || method === "HEAD") return { kind: "pass", path, query };
  if (method !== "POST") return refused(405, "this method is not answered");
  if (!options.actions) return refused(403, "start upcycle studio with --allow-actions to start and stop commands");
  if (origin === undefined) return refused(403, "a request that acts says where it comes from");
  if (!/^application\/json\b/i.test(single(headers["content-type"]) ?? ""))
    return refused(400, "a request that acts is JSON");
  return { kind: "pass", path, query };
}

/** A header that stands once; null otherwise. */
const single = (value: string | string[] | undefined): string | null => (typeof value === "string" ? value : null);

function cookieOf(header: string, name: string): string | null {
  for (const part of header.split(";")) {
    const [key = "", value = ""] = part.trim().split(/=(.*)/s, 2);
    if (key === name) return value;
  }
  return null;
}

const policy = (style: string): string =>
  `default-src 'none'; script-src 'self'; style-src ${style}; img-src 'self' data: blob:; connect-src 'self'; ` +
  "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Headers of every answer. Pages load what this server sends, and nothing else. */
export const safeHeaders: Readonly<Record<string, string>> = {
  "content-security-policy": policy("'none'"),
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

/** Headers of the page whose style sheet is this text and no other. */
export const pageHeaders = (style: string): Readonly<Record<string, string>> => ({
  ...safeHeaders,
  "content-security-policy": policy(`'sha256-${createHash("sha256").update(style).digest("base64")}'`),
});

/**
 * Headers of a page from the folder that is shown. Whoever wrote it, its scripts run in an origin of their own, load
 * nothing, and reach neither this server's answers nor its actions.
 */
export const reportHeaders: Readonly<Record<string, string>> = {
  ...safeHeaders,
  "content-security-policy":
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; " +
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
};

/** The cookie that carries the token: no script reads it, no other site sends it. */
export const cookieHeader = ({ cookie, token }: Pick<GuardOptions, "cookie" | "token">): string =>
  `${cookie}=${token}; HttpOnly; SameSite=Strict; Path=/`;
