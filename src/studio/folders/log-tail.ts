/** A log of JSON lines that is being written: what is complete is read once, what is torn when it is complete. */
import { isAscii } from "node:buffer";
import { distantFiles, type FolderFiles, type PlainFile } from "./safe-file.js";

/**
 * Bytes that are read at once: larger texts are kept by the collector until memory has grown by much. A line that is
 * longer than the longest is passed over.
 */
const pieceBytes = 1 << 16;
const longestLine = 64 << 20;
/** More than a usual line, whose number is at its beginning. */
const markBytes = 512;

/** What a reading found. */
export interface TailReading {
  /** Whether lines were given. */
  readonly changed: boolean;
  /** The log is another one, or was cut off: what was read before is void. The lines given are those of the new one. */
  readonly restarted: boolean;
  /** When the log was last written, in milliseconds since 1970. */
  readonly written: number;
}

/** Who takes what is read. */
export interface LineTaker {
  /** Takes the JSON of a complete line. Returns whether it is a record; one that is cut may throw. */
  take(record: unknown): boolean;
  /** Called before the first line of a log that is another one than before. */
  restart(): void;
  /**
   * Takes the text of a complete line before it is parsed; where it returns true, the line is not parsed. Most lines of
   * a long log need not be, and parsing is nearly all of what reading costs.
   */
  keep?(line: string): boolean;
  /** Called with the text of lines before they are given one by one. */
  piece?(text: string): void;
  /** Lets others have their turn between pieces. */
  breathe?: (() => Promise<void>) | undefined;
}

/** Buffers of pieces that nobody uses: a new one for each of a thousand logs would wait for a collection. */
const spare: Buffer[] = [];
const pieceBuffer = (): Buffer => spare.pop() ?? Buffer.allocUnsafeSlow(pieceBytes);

/** A place in a log, from which it is read on. */
export class LogTail {
  #at = 0;
  #inode = 0;
  #size = -1;
  #written = 0;
  /** The last bytes before `#at`: whoever replaces the log by one of the same length changes them. */
  #mark: Buffer = Buffer.alloc(0);
  /** Complete lines that are no records. */
  badLines = 0;

  constructor(
    private readonly path: string,
    private readonly files: FolderFiles = distantFiles,
  ) {}

  /** Gives every line that has become complete. Returns null for a log that is not there, or is a link or no file. */
  async read(taker: LineTaker): Promise<TailReading | null> {
    if (this.#size >= 0) {
      // Most looks find nothing new, and need not open the log for it.
      const state = await this.files.state(this.path);
      if (state === null) return null;
      if (this.#isAsBefore(state)) return { changed: false, restarted: false, written: state.changed };
    }
    const file = await this.files.open(this.path);
    if (file === null) return null;
    const { size, inode, changed } = file;
    try {
      const restarted = this.#at > 0 && (inode !== this.#inode || size < this.#at || !(await this.#isSame(file)));
      if (restarted || inode !== this.#inode) this.#begin();
      if (restarted) taker.restart();
      [this.#inode, this.#size, this.#written] = [inode, size, changed];
      const found = await this.#readOn(file, taker);
      return { changed: found || restarted, restarted, written: changed };
    } finally {
      await file.close();
    }
  }

  #isAsBefore(state: { readonly size: number; readonly inode: number; readonly changed: number }): boolean {
    return state.size === this.#size && state.inode === this.#inode && state.changed === this.#written;
  }

  #begin(): void {
    [this.#at, this.#size, this.badLines, this.#mark] = [0, -1, 0, Buffer.alloc(0)];
  }

  async #isSame(file: PlainFile): Promise<boolean> {
    const found = Buffer.alloc(this.#mark.length);
    await file.read(found, 0, found.length, this.#at - found.length);
    return found.equals(this.#mark);
  }

  /** Reads to `size`. Bytes from 0 to `held` of the buffer are of a line whose end was not read yet. */
  async #readOn(file: PlainFile, taker: LineTaker): Promise<boolean> {
    const { size } = file;
    let found = false;
    let held = 0;
    let buffer = size - this.#at < pieceBytes ? Buffer.allocUnsafe(Math.max(0, size - this.#at)) : pieceBuffer();
    for (let offset = this.#at; offset < size;) {
      if (held === buffer.length) {
        buffer = Buffer.concat([buffer], 2 * buffer.length);
      }
      const bytesRead = await file.read(buffer, held, Math.min(buffer.length - held, size - offset), offset);
      if (bytesRead === 0) break;
      offset += bytesRead;
      const whole = held + bytesRead;
      const end = buffer.subarray(held, whole).lastIndexOf(10) + 1;
      if (end > 0) {
        const complete = buffer.subarray(0, held + end);
        this.#lines(complete, taker);
        found = true;
        this.#mark = Buffer.from(complete.subarray(-markBytes));
        this.#at += complete.length;
        buffer.copyWithin(0, complete.length, whole);
        held = whole - complete.length;
      } else held = whole;
      if (held > longestLine) {
        this.#at += held;
        this.#mark = Buffer.alloc(0);
        this.badLines++;
        held = 0;
      }
      if (offset < size) await taker.breathe?.();
    }
    if (buffer.length === pieceBytes) spare.push(buffer);
    return found;
  }

  /** Lines that are complete, the last one too. One text of all of them costs less than a text of each. */
  #lines(bytes: Buffer, taker: LineTaker): void {
    const text = bytes.toString(isAscii(bytes) ? "latin1" : "utf8");
    taker.piece?.(text);
    for (let from = 0, end = text.indexOf("\n"); end >= 0; from = end + 1, end = text.indexOf("\n", from)) {
      if (end === from) continue;
      const line = text.slice(from, end);
      if (taker.keep?.(line) !== true) this.#parse(line, taker);
    }
  }

  #parse(line: string, taker: LineTaker): void {
    let isRecord = false;
    try {
      isRecord = taker.take(JSON.parse(line));
    } catch {
      // Whoever writes half a record must not stop whoever reads all others.
    }
    if (!isRecord) this.badLines++;
  }
}
