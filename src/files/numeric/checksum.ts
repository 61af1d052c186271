/**
 * CRC-32 of bytes that were summed in parts: the sum of a whole from the sums and lengths of its parts. Source: zlib,
 * `crc32_combine_op`. Pure.
 */
const polynomial = 0xedb88320;

/** A linear map of 32 bits: what each bit becomes. */
type BitMatrix = Uint32Array;

function times(matrix: BitMatrix, vector: number): number {
  let sum = 0;
  for (let bit = 0, rest = vector >>> 0; rest !== 0; bit++, rest >>>= 1) if ((rest & 1) === 1) sum ^= matrix[bit]!;
  return sum >>> 0;
}

const product = (a: BitMatrix, b: BitMatrix): BitMatrix => b.map((column) => times(a, column));

/** What one zero bit behind the bytes does to their sum. */
const oneBit: BitMatrix = Uint32Array.from({ length: 32 }, (_, bit) => (bit === 0 ? polynomial : 2 ** (bit - 1)));

const known = new Map<number, BitMatrix>();

/** What so many zero bytes behind the bytes do to their sum. */
function zeroBytes(count: number): BitMatrix {
  const found = known.get(count);
  if (found !== undefined) return found;
  let result: BitMatrix | null = null;
  let power = product(oneBit, oneBit);
  power = product(power, power);
  power = product(power, power);
  for (let rest = count; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result = result === null ? power : product(power, result);
    power = product(power, power);
  }
  const matrix = result ?? Uint32Array.from({ length: 32 }, (_, bit) => 2 ** bit);
  if (known.size < 1024) known.set(count, matrix);
  return matrix;
}

/** The sum of two runs of bytes, one behind the other; `bytes`: of the second. */
export function joinedChecksum(first: number, second: number, bytes: number): number {
  return (times(zeroBytes(bytes), first) ^ second) >>> 0;
}
