/** Answers as state of a component. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ask } from "./source.js";

/** An answer, or why there is none; both null while it is waited for. The old answer stays until a new one comes. */
export interface Answered<T> {
  readonly data: T | null;
  readonly error: string | null;
}

/** Asks for an address, again whenever it or `version` changes; null asks for nothing. */
export function useAnswer<T>(address: string | null, version: unknown = 0): Answered<T> {
  const [state, setState] = useState<Answered<T> & { readonly address: string | null }>({
    data: null,
    error: null,
    address,
  });
  // What is asked for before the frame is drawn is there a frame sooner.
  useLayoutEffect(() => {
    if (address === null) return;
    const abort = new AbortController();
    ask<T>(address, abort.signal).then(
      (data) => setState({ data, error: null, address }),
      (cause: unknown) => {
        if (!abort.signal.aborted) setState({ data: null, error: (cause as Error).message, address });
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
