/**
 * CPython's `random.Random`, as far as the LM Evaluation Harness draws from it: few-shot examples and bootstrap
 * resamples are then the harness's own. Sources: Matsumoto & Nishimura 1998 (MT19937, `init_by_array`), and CPython's
 * `Lib/random.py` and `Modules/_randommodule.c`.
 */

const SIZE = 624;
const SHIFT = 397;

/** A generator that has been seeded with a whole number from 0 to 2^32 - 1. */
export class PythonRandom {
  private readonly state = new Uint32Array(SIZE);
  private index = SIZE;

  constructor(seed: number) {
    if (!Number.isInteger(seed) || seed < 0 || seed > 0xffffffff) throw new Error(`${seed} is no seed of 32 bits`);
    this.seedByArray(seed >>> 0);
  }

  private seedWith(value: number): void {
    const { state } = this;
    state[0] = value;
    for (let i = 1; i < SIZE; i++) {
      const before = state[i - 1]! ^ (state[i - 1]! >>> 30);
      state[i] = Math.imul(1812433253, before) + i;
    }
  }

  /** `init_by_array` with a key of one word, which is how CPython seeds with a number of up to 32 bits. */
  private seedByArray(key: number): void {
    const { state } = this;
    this.seedWith(19650218);
    let i = 1;
    const wrap = (): void => {
      i++;
      if (i < SIZE) return;
      state[0] = state[SIZE - 1]!;
      i = 1;
    };
    for (let k = 0; k < SIZE; k++) {
      state[i] = (state[i]! ^ Math.imul(state[i - 1]! ^ (state[i - 1]! >>> 30), 1664525)) + key;
      wrap();
    }
    for (let k = 0; k < SIZE - 1; k++) {
      state[i] = (state[i]! ^ Math.imul(state[i - 1]! ^ (state[i - 1]! >>> 30), 1566083941)) - i;
      wrap();
    }
    state[0] = 0x80000000;
    this.index = SIZE;
  }

  private refill(): void {
    const { state } = this;
    for (let i = 0; i < SIZE; i++) {
      const joined = (state[i]! & 0x80000000) | (state[(i + 1) % SIZE]! & 0x7fffffff);
      state[i] = state[(i + SHIFT) % SIZE]! ^ (joined >>> 1) ^ ((joined & 1) === 0 ? 0 : 0x9908b0df);
    }
    this.index = 0;
  }

  /** The next 32 bits. */
  uint32(): number {
    if (this.index === SIZE) this.refill();
    let y = this.state[this.index++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  /** `random()`: 53 bits in [0, 1). */
  random(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** `_randbelow(n)` for n from 1 to 2^32 - 1. */
  below(n: number): number {
    const bits = 32 - Math.clz32(n);
    let drawn = this.uint32() >>> (32 - bits);
    while (drawn >= n) drawn = this.uint32() >>> (32 - bits);
    return drawn;
  }

  /** The positions that `sample(population, k)` takes of a population of `n`. Throws RangeError for k above n. */
  sample(n: number, k: number): number[] {
    if (k > n) throw new RangeError(`${k} of ${n} cannot be drawn`);
    let setSize = 21;
    if (k > 5) setSize += 4 ** Math.ceil(logarithm(k * 3, 4));
    const drawn: number[] = [];
    if (n <= setSize) {
      const pool = Array.from({ length: n }, (_, i) => i);
      for (let i = 0; i < k; i++) {
        const place = this.below(n - i);
        drawn.push(pool[place]!);
        pool[place] = pool[n - i - 1]!;
      }
      return drawn;
    }
    const taken = new Set<number>();
    for (let i = 0; i < k; i++) {
      let place = this.below(n);
      while (taken.has(place)) place = this.below(n);
      taken.add(place);
      drawn.push(place);
    }
    return drawn;
  }

  /** Fills `into` with the positions that `choices(population, k=into.length)` takes of a population of `n`. */
  choices(n: number, into: Int32Array): Int32Array {
    for (let i = 0; i < into.length; i++) into[i] = Math.floor(this.random() * n);
    return into;
  }
}

/** `math.log(x, base)`, whose quotient CPython rounds as float64. */
const logarithm = (x: number, base: number): number => Math.log(x) / Math.log(base);
