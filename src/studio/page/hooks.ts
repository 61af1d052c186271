/** Answers as state of a component. */
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ask, askTogether } from "./source.js";

/** An answer, or why there is none; both null while it is waited for. The old answer stays until a new one comes. */
export interface Answered<T> {
  readonly data: T | null;
  readonly error: string | null;
}

/** How an answer that is there already is asked for again. */
export interface Growth<T> {
  /** What asks for the rest; null where all is asked for. */
  readonly address: (before: T) => string | null;
  readonly join: (before: T, more: T) => T;
}

/** Asks for an address, again whenever it or `version` changes; null asks for nothing. */
export function useAnswer<T>(address: string | null, version: unknown = 0, growth?: Growth<T>): Answered<T> {
  const [state, setState] = useState<Answered<T> & { readonly address: string | null }>({
    data: null,
    error: null,
    address,
  });
  const last = useRef(state);
  // What is asked for before the frame is drawn is there a frame sooner.
  useLayoutEffect(() => {
    if (address === null) return;
    const abort = new AbortController();
    const before = last.current.address === address ? last.current.data : null;
    const rest = before === null ? null : (growth?.address(before) ?? null);
    const take = (data: T | null, error: string | null): void => {
      last.current = { data, error, address };
      setState(last.current);
    };
    (rest === null ? ask<T>(address, abort.signal) : askTogether<T>(rest)).then(
      (data) => {
        // An answer that was given up while it came has lost its end.
        if (!abort.signal.aborted) take(before !== null && rest !== null ? growth!.join(before, data) : data, null);
      },
      (cause: unknown) => {
        if (!abort.signal.aborted) take(null, (cause as Error).message);
      },
    );
    return () => abort.abort();
  }, [address, version]);
  return state;
}

/** A value as it was at most so many milliseconds ago: what changes all the time is followed now and then. */
export function useSlowly<T>(value: T, ms: number): T {
  const [shown, setShown] = useState(value);
  const last = useRef(0);
  useEffect(() => {
    if (value === shown) return;
    const timer = setTimeout(
      () => {
        last.current = Date.now();
        setShown(value);
      },
      Math.max(0, last.current + ms - Date.now()),
    );
    return () => clearTimeout(timer);
  }, [value, shown]);
  return shown;
}

/** Whether an element is on the screen, or near it; true until it is known. */
export function useIsSeen(element: RefObject<Element | null>): boolean {
  const [isSeen, setIsSeen] = useState(true);
  useEffect(() => {
    const { current } = element;
    if (current === null) return;
    const observer = new IntersectionObserver((entries) => setIsSeen(entries.at(-1)?.isIntersecting ?? true), {
      rootMargin: "100px",
    });
    observer.observe(current);
    return () => observer.disconnect();
  }, []);
  return isSeen;
}

/** A value as it was when `isFollowed` was last true. */
export function useWhile<T>(isFollowed: boolean, value: T): T {
  const last = useRef(value);
  if (isFollowed) last.current = value;
  return last.current;
}
