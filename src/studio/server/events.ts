/**
 * What changes, told to the pages that listen, as server-sent events. Events are numbered; a page that was away says
 * the last number that it saw, and gets what it missed, or is told to ask for everything anew.
 */
import type { ServerResponse } from "node:http";

/** Events that are kept for pages that come back. */
const mostKept = 200;
/** Bytes that may wait for a page that reads too slowly, before it is let go. */
const mostWaiting = 4 << 20;
/** Most pages that listen at once. */
const mostListeners = 64;

interface Kept {
  readonly id: number;
  readonly text: string;
}

/** The events of one server. */
export class EventHub {
  readonly #listeners = new Set<ServerResponse>();
  readonly #kept: Kept[] = [];
  #id = 0;

  /** `onListen` is called for every page that begins to listen. */
  constructor(private readonly onListen: () => void = () => undefined) {}

  get listeners(): number {
    return this.#listeners.size;
  }

  /** Adds a page. Returns false where there are too many. */
  listen(response: ServerResponse, lastSeen: string | undefined): boolean {
    if (this.#listeners.size >= mostListeners) return false;
    response.write(`retry: 1000\nid: ${this.#id}\nevent: hello\ndata: {}\n\n`);
    const seen = lastSeen !== undefined && /^\d{1,15}$/.test(lastSeen) ? Number(lastSeen) : null;
    if (seen !== null && seen !== this.#id) {
      const oldest = this.#kept[0]?.id ?? this.#id + 1;
      if (seen > this.#id || seen < oldest - 1) response.write("event: reset\ndata: {}\n\n");
      else for (const { id, text } of this.#kept) if (id > seen) response.write(text);
    }
    this.#listeners.add(response);
    response.on("close", () => this.#listeners.delete(response));
    this.onListen();
    return true;
  }

  /** Tells all pages. */
  send(event: string, data: unknown): void {
    const id = ++this.#id;
    const text = `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
    this.#kept.push({ id, text });
    if (this.#kept.length > mostKept) this.#kept.shift();
    this.#write(text);
  }

  /** A line that says nothing, so that nobody in between takes the connection for dead. */
  beat(): void {
    this.#write(": still here\n\n");
  }

  /** Ends all connections. */
  close(): void {
    for (const response of this.#listeners) response.end();
    this.#listeners.clear();
  }

  #write(text: string): void {
    for (const response of this.#listeners) {
      if (response.writableLength > mostWaiting) {
        response.destroy();
        this.#listeners.delete(response);
      } else response.write(text);
    }
  }
}
