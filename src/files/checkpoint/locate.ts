/** Finds every stored tensor of a model folder from its index and the headers of its files; reads no weights. */
import { readdir } from "node:fs/promises";
import { extname, join } from "node:path";
import { UpcycleError, inputError } from "../../base/errors.js";
import { foreignFile, tellingBytes } from "../formats/foreign-file.js";
import type { Header } from "../formats/safetensors.js";
import {
  headerAlone,
  headerLength,
  isHeaderAlone,
  lengthBytes,
  parseHeader,
  tensorBytes,
} from "../formats/safetensors.js";
import { indexFileName, parseIndex, pickledFileName, pickledIndexFileName, singleFileName } from "../formats/shards.js";
import { exists } from "../io/atomic.js";
import { requireNoDeadLink, withFsErrors } from "../io/fs-errors.js";
import type { RangeFile } from "../io/ranges.js";
import { openPooled } from "../io/range-pool.js";
import { readText } from "../io/ranges.js";
import { foreignFolder, misnamedWeights, missingShards } from "./foreign-folder.js";
import { pickledTensors } from "./pickled.js";
import { contiguous, type ReadableTensor } from "./stored.js";

/** One way to store weights: the names of its files, and what a file of it holds. */
interface Container {
  /** Name of the file that holds all weights. */
  readonly single: string;
  /** Name of the index, where several files hold them. */
  readonly index: string;
  readonly extension: string;
  /** The tensors of one open file, by name. */
  tensorsOf(source: RangeFile, name: string): Promise<Iterable<readonly [string, ReadableTensor]>>;
}

const safetensors: Container = {
  single: singleFileName,
  index: indexFileName,
  extension: "safetensors",
  async tensorsOf(source, file) {
    const { tensors, dataStart } = await readHeader(source);
    const weightless = isHeaderAlone(await source.read(dataStart, headerAlone(source.size - dataStart).length));
    return tensorsIn(source, file, tensors, weightless);
  },
};

/** Gives tensors one after the other, so that the many of a large header are not listed once more. */
function* tensorsIn(
  source: RangeFile,
  file: string,
  tensors: Header["tensors"],
  weightless: boolean,
): Generator<readonly [string, ReadableTensor]> {
  for (const [name, { dtype, shape, begin }] of tensors) {
    const tensor = contiguous(source, begin, { file, dtype, shape, bytes: tensorBytes(dtype, shape) });
    yield [
      name,
      weightless ? { ...tensor, weightless: true, read: () => Promise.reject(noWeightsHere(source.path)) } : tensor,
    ];
  }
}

const pickled: Container = {
  single: pickledFileName,
  index: pickledIndexFileName,
  extension: "bin",
  tensorsOf: pickledTensors,
};

/** All ways to store weights, in order of preference. */
const containers: readonly Container[] = [safetensors, pickled];

/**
 * Finds the tensors of a model folder, by name. Files are added to `files` as soon as they are open, for the caller to
 * close. Throws inputError for what is missing, damaged or contradictory.
 */
export async function locateTensors(dir: string, files: RangeFile[]): Promise<Map<string, ReadableTensor>> {
  for (const container of containers) {
    // A single file wins over an index, as in transformers.
    if (await exists(join(dir, container.single))) return readFiles(dir, container, null, files);
    const indexPath = join(dir, container.index);
    if (await exists(indexPath))
      return readFiles(dir, container, parseIndex(await readText(indexPath), indexPath, container.extension), files);
  }
  throw await noWeights(dir);
}

/** Finds the tensors of a LoRA adapter's folder, as PEFT names its files; otherwise like `locateTensors`. */
export async function locateAdapter(dir: string, files: RangeFile[]): Promise<Map<string, ReadableTensor>> {
  const adapterContainers = containers.map((container) => ({
    ...container,
    single: `adapter_model.${container.extension}`,
  }));
  for (const container of adapterContainers)
    if (await exists(join(dir, container.single))) return readFiles(dir, container, null, files);
  throw inputError(`folder has no ${adapterContainers.map(({ single }) => single).join(" and no ")}`, {
    where: dir,
    hint: "expected a LoRA adapter as PEFT saves it",
  });
}

async function readFiles(
  dir: string,
  container: Container,
  index: ReadonlyMap<string, string> | null,
  files: RangeFile[],
): Promise<Map<string, ReadableTensor>> {
  const fileNames = index === null ? [container.single] : [...new Set(index.values())].sort();
  const tensors = new Map<string, ReadableTensor>();
  for (const fileName of fileNames) {
    const path = join(dir, fileName);
    await requireListedFile(path, fileName, dir, container);
    const source = await openPooled(path);
    files.push(source);
    for (const [name, tensor] of await container.tensorsOf(source, fileName)) {
      if (index !== null) requireListed(name, fileName, path, index, container);
      tensors.set(name, tensor);
    }
  }
  for (const [name, fileName] of index ?? []) {
    if (!tensors.has(name))
      throw inputError(`tensor ${name} is not in this file, ${container.index} says it is`, {
        where: join(dir, fileName),
      });
  }
  return tensors;
}

async function requireListedFile(path: string, fileName: string, dir: string, { index }: Container): Promise<void> {
  if (await exists(path)) return;
  await requireNoDeadLink(path);
  throw inputError(`${fileName} is missing, ${index} lists it`, { where: dir, hint: "copy or download it again" });
}

/** Throws inputError for a tensor of a file that the index does not list there. */
function requireListed(
  name: string,
  fileName: string,
  path: string,
  index: ReadonlyMap<string, string>,
  container: Container,
): void {
  const listedFile = index.get(name);
  if (listedFile === fileName) return;
  const listing = listedFile === undefined ? "does not list it" : `says ${listedFile}`;
  throw inputError(`tensor ${name} is in this file, ${container.index} ${listing}`, { where: path });
}

/** The error of reading weights from a file that `files/hub/headers.ts` has made. */
function noWeightsHere(path: string): UpcycleError {
  return inputError("this file has the header of the weights alone, not the weights", {
    where: path,
    hint: "name the model as hf://org/name, so that its weights are downloaded",
  });
}

/** The header of one open safetensors file. */
async function readHeader(file: RangeFile): Promise<Header> {
  const first = await file.read(0, Math.min(tellingBytes, file.size));
  const foreign = foreignFile(first);
  if (foreign !== null) throw inputError(`this is ${foreign.what}`, { where: file.path, hint: foreign.hint });
  const length = headerLength(first, file.size, file.path);
  return parseHeader(await file.read(lengthBytes, length), file.size, file.path);
}

/** The error for a folder without any of the files that weights are looked for in. */
async function noWeights(dir: string): Promise<UpcycleError> {
  const names = await withFsErrors(dir, "list folder", () => readdir(dir));
  for (const name of containers.flatMap(({ single, index }) => [single, index]))
    await requireNoDeadLink(join(dir, name));
  const shard = names.find((name) => /^(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)$/.test(name));
  if (shard !== undefined) {
    const index = shard.endsWith(".bin") ? pickledIndexFileName : indexFileName;
    const found = missingShards(names.filter((name) => name.endsWith(extname(shard))).sort());
    const count = found === null ? "" : ` (${found})`;
    return inputError(`folder has ${shard}${count} but no ${index}`, { where: dir, hint: "copy or download it again" });
  }
  const foreign = (await foreignFolder(dir)) ?? (await misnamedWeights(dir));
  if (foreign !== null) return foreign;
  return inputError(`folder has no ${singleFileName}, no ${indexFileName} and no ${pickledFileName}`, { where: dir });
}
