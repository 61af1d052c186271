/** Much to read, in turns with what else is to be done. */

/** Milliseconds after which other work has its turn. */
const turnMs = 12;

/** Lets requests be answered while much is read. */
export function breather(): () => Promise<void> {
  let since = performance.now();
  return async () => {
    if (performance.now() - since < turnMs) return;
    await new Promise<void>((resolve) => setImmediate(resolve));
    since = performance.now();
  };
}

/** Does something with each, a few at once, and begins them in their order. */
export async function inTurns<T>(list: readonly T[], most: number, work: (one: T) => Promise<void>): Promise<void> {
  const left = list[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (const one of left) await work(one);
  };
  await Promise.all(Array.from({ length: Math.min(most, list.length) }, worker));
}
