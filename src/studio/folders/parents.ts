/**
 * The dense model that an upcycled one was made from. A record has the last part of the parent's path alone, and every
 * run has a checkpoint `last`: what tells such models apart are their weights, of which a child has the embedding.
 */
import { dirname, join } from "node:path";
import { headerLength, lengthBytes, parseHeader } from "../../files/formats/safetensors.js";
import { indexFileName } from "../../files/formats/shards.js";
import { specFromConfig } from "../../model/decoder/config.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { tensorNames } from "../../model/tensors/names.js";
import type { UpcycleRecord } from "../../surgery/convert/record.js";
import type { StudioIndex } from "./index.js";
import { bytesAt, readPlainJson } from "./safe-file.js";

/** Folders that are looked at for one model: a tree may have thousands of checkpoints of one name. */
const mostLookedAt = 64;
/**
 * Places of an embedding that are compared, evenly over all of it, and bytes of each. The first rows alone say little:
 * they are of tokens that no text has, which a training may leave as they were drawn, or lets decay alike in all runs.
 */
const [comparedPlaces, placeBytes] = [8, 512];

/** The description of a model's decoder; null where its config cannot be read. */
export async function specIn(index: StudioIndex, name: string): Promise<DecoderSpec | null> {
  const config = await readPlainJson(join(index.pathOf(name), "config.json"), 16e6);
  if (config === null) return null;
  try {
    return specFromConfig(config, name);
  } catch {
    return null;
  }
}

/**
 * The folder of the model that a record names, by its name, its shape and its weights; null where none below the folder
 * can be it, or where several can and none is nearer than the others.
 */
export async function parentFolder(index: StudioIndex, name: string, record: UpcycleRecord): Promise<string | null> {
  const child = await specIn(index, name);
  // Of several parents the embedding may be a mixture.
  const own = child === null || record.parents !== undefined ? null : await embeddingIn(index, name, child);
  const fitting: Candidate[] = [];
  for (const candidate of candidateParents(index, name, record.parent.name).slice(0, mostLookedAt)) {
    const { folder } = candidate;
    const spec = await specIn(index, folder);
    if (spec === null || !isParentOf(spec, record, child)) continue;
    const other = own === null ? null : await embeddingIn(index, folder, spec);
    if (own === null || other?.dtype !== own.dtype) fitting.push(candidate);
    else if (other.bytes.equals(own.bytes)) return folder;
  }
  const [first, second] = fitting;
  return first === undefined || first.nearness === second?.nearness ? null : first.folder;
}

/** A parent that is a run's checkpoint has the checkpoint's name, which says nothing: its run does. */
export async function shownParent(index: StudioIndex, name: string, record: UpcycleRecord): Promise<string> {
  const { name: parent } = record.parent;
  if (!["last", "best"].includes(parent)) return parent;
  const folder = await parentFolder(index, name, record);
  if (folder === null) return `a checkpoint "${parent}"`;
  const run = dirname(folder);
  return run === "." ? parent : run.replace(/-[0-9a-f]{12,}$/, "");
}

/** Whether a dense model has the family that a record says of the parent, and the size of its child. */
function isParentOf(spec: DecoderSpec, record: UpcycleRecord, child: DecoderSpec | null): boolean {
  const isDense = spec.layers.every(({ ffn }) => ffn.kind === "dense");
  const isAsLarge =
    child === null ||
    (spec.hidden === child.hidden && spec.vocab === child.vocab && spec.layers.length === child.layers.length);
  return isDense && isAsLarge && spec.family === record.parent.family;
}

/** Some bytes of a model's embedding; null where its weights cannot be read, such as those that are not there. */
async function embeddingIn(
  index: StudioIndex,
  name: string,
  spec: DecoderSpec,
): Promise<{ readonly dtype: string; readonly bytes: Buffer } | null> {
  const [tensor = ""] = tensorNames(spec, { part: "embed" });
  const shards = (await readPlainJson(join(index.pathOf(name), indexFileName))) as {
    readonly weight_map?: Readonly<Record<string, unknown>>;
  } | null;
  const file = shards?.weight_map?.[tensor] ?? "model.safetensors";
  // A name in a file is no path.
  if (typeof file !== "string" || !/^[\w.-]+$/.test(file)) return null;
  const path = join(index.pathOf(name), file);
  const first = await bytesAt(path, 0, lengthBytes);
  if (first === null) return null;
  try {
    const length = headerLength(first.bytes, first.size, file);
    const json = await bytesAt(path, lengthBytes, length);
    const found = json === null ? undefined : parseHeader(json.bytes, json.size, file).tensors.get(tensor);
    if (found === undefined) return null;
    const places = await Promise.all(
      placesIn(found.end - found.begin).map(
        async ([from, most]) => (await bytesAt(path, found.begin + from, most))?.bytes,
      ),
    );
    const bytes = places.flatMap((place) => place ?? []);
    return bytes.length < places.length ? null : { dtype: found.dtype, bytes: Buffer.concat(bytes) };
  } catch {
    return null;
  }
}

/** Where so many bytes are looked at, and how many there; all of a few. */
function placesIn(length: number): readonly (readonly [from: number, bytes: number])[] {
  if (length <= comparedPlaces * placeBytes) return [[0, length]];
  const last = length - placeBytes;
  return Array.from({ length: comparedPlaces }, (_, i) => [Math.floor((i * last) / (comparedPlaces - 1)), placeBytes]);
}

interface Candidate {
  readonly folder: string;
  readonly nearness: number;
}

/** Folders that may be a model's parent: those of its name, the nearest first, a study's parents before its arms. */
function candidateParents(index: StudioIndex, name: string, parent: string): Candidate[] {
  const last = parent.split("/").at(-1) ?? parent;
  return index.found.checkpoints
    .filter((folder) => folder !== name && folder.split("/").at(-1) === last)
    .map((folder) => ({ folder, nearness: 2 * sharedLength(folder, name) - Number(/(^|\/)arms\//.test(folder)) }))
    .sort((a, b) => b.nearness - a.nearness);
}

/** How many characters two names have in common at their beginning. */
function sharedLength(one: string, other: string): number {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length++;
  return length;
}
