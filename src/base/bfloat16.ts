/** Rounding to bfloat16 as PyTorch does it. */

const view = new DataView(new ArrayBuffer(4));

/** The nearest number that bfloat16 holds, by way of float32; ties go to the even last bit. */
export function bfloat16(value: number): number {
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  view.setUint32(0, ((bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000) >>> 0);
  return view.getFloat32(0);
}
