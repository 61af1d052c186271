/** Memory and handles of a GPU that are taken together: all of them, or none. */

/** What was taken so far. */
export class Owned implements Disposable {
  private readonly things: Disposable[] = [];

  /** Adds a thing, and gives it back to the caller. */
  keep<Thing extends Disposable>(thing: Thing): Thing {
    this.things.push(thing);
    return thing;
  }

  /** Frees everything, the last thing first. */
  [Symbol.dispose](): void {
    for (const thing of this.things.splice(0).reverse()) thing[Symbol.dispose]();
  }
}

/** What `make` makes of what it keeps, which is then the caller's; where it throws, what it has kept is freed. */
export function allOrNone<Made>(make: (owned: Owned) => Made): Made {
  const owned = new Owned();
  try {
    return make(owned);
  } catch (cause) {
    owned[Symbol.dispose]();
    throw cause;
  }
}

/** As `allOrNone`, for what takes its time. */
export async function allOrNoneLater<Made>(make: (owned: Owned) => Promise<Made>): Promise<Made> {
  const owned = new Owned();
  try {
    return await make(owned);
  } catch (cause) {
    owned[Symbol.dispose]();
    throw cause;
  }
}
