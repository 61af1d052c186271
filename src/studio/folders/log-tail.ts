/** A log of JSON lines that is being written: what is complete is read once, what is torn when it is complete. */
import { openPlain } from "./safe-file.js";

/** Bytes that are read at once; a line that is longer than the longest is passed over. */
const pieceBytes = 1 << 20;
const longestLine = 64 << 20;
const markBytes = 64;

/** What a reading found. */
export interface TailReading {
  /** Whether lines were given. */
  readonly changed: boolean;
  /** The log is another one, or was cut off: what was read before is void. The lines given are those of the new one. */
  readonly restarted: boolean;
  /** When the log was last written, in milliseconds since 1970. */
  readonly written: number;
}

/** A place in a log, from which it is read on. */
export class LogTail {
  #at = 0;
  #inode = 0;
  #size = -1;
  #written = 0;
  /** The last bytes before `#at`: whoever replaces the log by one of the same length changes them. */
  #mark: Buffer = Buffer.alloc(0);
  /** Complete lines that are no JSON. */
  badLines = 0;

  constructor(private readonly path: string) {}

  /**
   * Gives every line that has become complete to `take`, which is called with `undefined` first where the log is
   * another one. Returns null for a log that is not there, or is a link or no file.
   */
  async read(take: (record: unknown) => void, breathe?: () => Promise<void>): Promise<TailReading | null> {
    const file = await openPlain(this.path);
    if (file === null) return null;
    const { handle, size, inode, changed } = file;
    try {
      if (size === this.#size && inode === this.#inode && changed === this.#written)
        return { changed: false, restarted: false, written: changed };
      const restarted = this.#at > 0 && (inode !== this.#inode || size < this.#at || !(await this.#isSame(handle)));
      if (restarted || inode !== this.#inode) this.#begin();
      if (restarted) take(undefined);
      [this.#inode, this.#size, this.#written] = [inode, size, changed];
      const found = await this.#readOn(handle, size, take, breathe);
      return { changed: found || restarted, restarted, written: changed };
    } finally {
      await handle.close();
    }
  }

  #begin(): void {
    [this.#at, this.#size, this.badLines, this.#mark] = [0, -1, 0, Buffer.alloc(0)];
  }

  async #isSame(handle: NonNullable<Awaited<ReturnType<typeof openPlain>>>["handle"]): Promise<boolean> {
    const found = Buffer.alloc(this.#mark.length);
    await handle.read(found, 0, found.length, this.#at - found.length);
    return found.equals(this.#mark);
  }

  async #readOn(
    handle: NonNullable<Awaited<ReturnType<typeof openPlain>>>["handle"],
    size: number,
    take: (record: unknown) => void,
    breathe: (() => Promise<void>) | undefined,
  ): Promise<boolean> {
    let found = false;
    let rest: Buffer = Buffer.alloc(0);
    for (let offset = this.#at; offset < size;) {
      const piece = Buffer.alloc(Math.min(pieceBytes, size - offset));
      const { bytesRead } = await handle.read(piece, 0, piece.length, offset);
      if (bytesRead === 0) break;
      offset += bytesRead;
      const whole: Buffer =
        rest.length === 0 ? piece.subarray(0, bytesRead) : Buffer.concat([rest, piece.subarray(0, bytesRead)]);
      let from = 0;
      for (let end = whole.indexOf(10); end >= 0; end = whole.indexOf(10, from)) {
        this.#line(whole.subarray(from, end), take);
        found = true;
        from = end + 1;
      }
      if (from > 0) this.#mark = Buffer.from(whole.subarray(Math.max(0, from - markBytes), from));
      this.#at += from;
      rest = whole.subarray(from);
      if (rest.length > longestLine) {
        this.#at += rest.length;
        rest = Buffer.alloc(0);
        this.#mark = Buffer.alloc(0);
        this.badLines++;
      }
      if (breathe !== undefined && offset < size) await breathe();
    }
    return found;
  }

  #line(bytes: Buffer, take: (record: unknown) => void): void {
    if (bytes.length === 0) return;
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString("utf8"));
    } catch {
      this.badLines++;
      return;
    }
    take(value ?? null);
  }
}
