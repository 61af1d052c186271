/** The value, in tests that know it to be there. Throws where it is null or undefined, so that the test fails there. */
export function present<T>(value: T): NonNullable<T> {
  if (value === null || value === undefined) throw new Error(`expected a value, found ${String(value)}`);
  return value;
}
