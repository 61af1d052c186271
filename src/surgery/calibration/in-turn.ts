/** Asynchronous work that is done for one item after the other. */

/** The results of `work` for all items, in their order. The next item begins when the one before has ended. */
export async function inTurn<A, B>(items: Iterable<A>, work: (item: A, index: number) => Promise<B>): Promise<B[]> {
  const results: B[] = [];
  for (const item of items) results.push(await work(item, results.length));
  return results;
}
