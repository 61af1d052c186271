/** Long operations are async generators: they yield events while they work and return their result. */

/**
 * Runs an operation to its end and returns its result; `onEvent` hears what it yields. Throws what the operation
 * throws, and what `onEvent` throws after the operation has tidied up.
 */
export async function resultOf<E, R>(events: AsyncGenerator<E, R>, onEvent?: (event: E) => void): Promise<R> {
  try {
    for (;;) {
      const next = await events.next();
      if (next.done === true) return next.value;
      onEvent?.(next.value);
    }
  } finally {
    await events.return(undefined as never);
  }
}

/**
 * The events that `work` tells through a callback, as a generator that returns the result of `work`. `work` does not
 * wait for whoever listens. It gets a signal that fires with `signal`, and when the listener leaves early; the
 * generator then ends as soon as `work` has stopped.
 */
export async function* eventsOf<E, R>(
  work: (tell: (event: E) => void, signal: AbortSignal) => Promise<R>,
  signal?: AbortSignal,
): AsyncGenerator<E, R, undefined> {
  const leaving = new AbortController();
  const events: E[] = [];
  let wake = (): void => undefined;
  const tell = (event: E): void => {
    events.push(event);
    wake();
  };
  const running = work(tell, signal === undefined ? leaving.signal : AbortSignal.any([signal, leaving.signal]));
  let isOver = false;
  const end = settled(running).then(() => {
    isOver = true;
    wake();
  });
  try {
    for (;;) {
      for (const event of events.splice(0)) yield event;
      if (isOver) return await running;
      if (events.length === 0) await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    leaving.abort();
    await end;
  }
}

/** Fulfilled once `work` has ended, whether well or not. */
function settled(work: Promise<unknown>): Promise<void> {
  return work.then(
    () => undefined,
    () => undefined,
  );
}
