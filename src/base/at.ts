/** Checked access, for places that only a mistake in the code could leave empty: it throws where there is nothing. */

/** Element `index` of an array or typed array. Throws RangeError where there is none. */
export function at<T>(values: ArrayLike<T>, index: number): T {
  const value = values[index];
  if (value === undefined) throw new RangeError(`there is no element ${index} among ${values.length}`);
  return value;
}

/** Value of a record's own key. Throws RangeError where there is none. */
export function valueAt<T>(record: Readonly<Record<string, T>>, key: string): T {
  const value = Object.hasOwn(record, key) ? record[key] : undefined;
  if (value === undefined) throw new RangeError(`there is no value under ${key}`);
  return value;
}

/** Value of a map's key. Throws RangeError where there is none. */
export function entryOf<K, V>(map: ReadonlyMap<K, V>, key: K): V {
  const value = map.get(key);
  if (value === undefined) throw new RangeError(`there is no entry under ${String(key)}`);
  return value;
}
