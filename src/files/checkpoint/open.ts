/**
 * Opens a model folder (config.json and weight files) as a spec and its tensors. Everything that can be known
 * without reading weights is checked here, once, so that a run does not find out after an hour.
 */
import { stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { inputError } from "../../base/errors.js";
import { exists, previousName } from "../io/atomic.js";
import { requireNoDeadLink, withFsErrors } from "../io/fs-errors.js";
import { kindOf, sizeLimits } from "../io/open.js";
import type { RangeFile } from "../io/ranges.js";
import { readJson } from "../io/ranges.js";
import type { FloatDtype } from "../numeric/dtype.js";
import { toFloat32 } from "../numeric/dtype.js";
import { decoderConfig, specFromConfig, unreadKeys } from "../../model/decoder/config.js";
import { readQuantization } from "../../model/decoder/quantization.js";
import { textPartOf, turnsExperts, type TextPart } from "../../model/decoder/text-part.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { isComputedBuffer } from "../../model/tensors/names.js";
import { familyNames, headNames } from "../../model/tensors/stored-names.js";
import { adapterConfigFile, withAdapter } from "./adapter.js";
import { foreignFolder } from "./foreign-folder.js";
import { locateTensors } from "./locate.js";
import { megatronFolder, openMegatronFolder, type MegatronReading } from "./open-megatron.js";
import { modelFolderOf, type ModelSource } from "./model-source.js";
import { dequantizedDtype, isActivationScale, withScales } from "./scales.js";
import { elements } from "../../base/shapes.js";
import { requireUnpacked } from "./packed-weights.js";
import { placesIn } from "./places.js";
import type { ReadableTensor } from "./stored.js";
import { decideHead } from "./tied-head.js";
import type { Checkpoint } from "./types.js";
import { openRectangleReader } from "./rectangle-reader.js";
import { readSlot, readSlotRows, slotSources, type SlotSource } from "./slot-sources.js";

export type { Adapter, Checkpoint } from "./types.js";
export type { ModelSource } from "./model-source.js";
export type { StoredTensor } from "./stored.js";

/**
 * Opens a model folder, or one with an adapter merged in. Nothing but headers is read of the weights. Close it when it
 * is no longer needed: its files stay open until then.
 *
 * Throws inputError, naming what was found and what was expected, if the folder is not a supported model, a file is
 * missing or cut short, or a tensor is missing, misshapen or not floating point; and for an adapter that cannot be
 * merged in. Throws stopError where the system fails.
 */
export async function openCheckpoint(source: ModelSource): Promise<Checkpoint> {
  const base = await openFolder(modelFolderOf(source));
  if (typeof source === "string") return { ...base, notes: [...base.notes, ...(await noteOnAdapter(source))] };
  try {
    return await withAdapter(base, source.adapter);
  } catch (cause) {
    await base.close();
    throw cause;
  }
}

/** transformers applies an adapter that it finds in the model's own folder; here it has to be asked for. */
async function noteOnAdapter(dir: string): Promise<string[]> {
  if (!(await exists(join(dir, adapterConfigFile)))) return [];
  return [
    `${adapterConfigFile} lies beside the model: its adapter is not merged in, though transformers applies it; ` +
      "MODEL+ADAPTER does, with this folder for both",
  ];
}

/**
 * Opens a checkpoint of Megatron-Core with what the user says beside it: a folder of saves, or that of one. Throws
 * inputError like `openCheckpoint`.
 */
export async function openMegatron(dir: string, reading: MegatronReading = {}): Promise<Checkpoint> {
  await requireFolder(dir);
  const save = await megatronFolder(dir);
  if (save === null)
    throw inputError("this is no checkpoint of Megatron-Core", {
      where: dir,
      hint: "expected latest_checkpointed_iteration.txt, .metadata with metadata.json, or mp_rank_* folders",
    });
  const { spec, config, tensors, places, files, notes } = await openMegatronFolder(save, reading);
  try {
    const names = new Set(places.map(({ name }) => name));
    const describedBy = "the checkpoint's args";
    requireTensors(names, tensors, save, spec, describedBy);
    // Optimizer states are no weights that a model leaves unread.
    const others = [...tensors.keys()]
      .filter((name) => /^(embedding|decoder|output_layer)\./.test(name) && !names.has(name) && !isAlias(name, names))
      .sort();
    const sources = slotSources(places, tensors, save, describedBy);
    const opened = checkpointOf({ dir: save, spec, config, tensors, others, sources, files });
    return { ...opened, notes: [...opened.notes, ...notes] };
  } catch (cause) {
    await Promise.all(files.map((file) => file.close()));
    throw cause;
  }
}

/** Whether this is the second name of a norm that is read under its first. */
function isAlias(name: string, names: ReadonlySet<string>): boolean {
  const other = name.replace("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_");
  return other !== name && names.has(other);
}

async function openFolder(dir: string): Promise<Checkpoint> {
  await requireFolder(dir);
  if ((await megatronFolder(dir)) !== null) return openMegatron(dir);
  const { configPath, whole, config, part, spec: described } = await readDescription(dir);
  const files: RangeFile[] = [];
  try {
    const named = underFamilyNames(described, await locateTensors(dir, files), dir);
    const turned = turnsExperts(whole);
    const asDescribed = placesIn(described, { tensors: named, dir, turned });
    const names = new Set([...asDescribed.map(({ name }) => name), ...headNames(described)]);
    const quantization = readQuantization(config, configPath);
    if (quantization === null) await requireUnpacked(named.keys(), config, dir);
    const { tensors: scaled, scales } = withScales(named, names, quantization, dequantizedDtype(config), dir);
    const { spec, tensors, copies, notes } = await decideHead(described, scaled, dir);
    const places = spec === described && tensors === scaled ? asDescribed : placesIn(spec, { tensors, dir, turned });
    const read = new Set(places.map(({ name }) => name));
    requireTensors(read, tensors, dir, spec);
    const others = [...tensors.keys()]
      .filter((name) => !read.has(name) && !copies.has(name) && !scales.has(name) && !isComputedBuffer(name))
      .sort();
    const [rest, left] = part === null ? [others, []] : textAlone(others, part, spec.family);
    const sources = slotSources(places, tensors, dir);
    const opened = checkpointOf({ dir, spec, config, tensors, others: rest, sources, files });
    return { ...opened, notes: [...left, ...notes, ...opened.notes, ...noteOnKeys(unreadKeys(config))] };
  } catch (cause) {
    await Promise.all(files.map((file) => file.close()));
    throw cause;
  }
}

/** What config.json says of a model. */
interface Description {
  readonly configPath: string;
  /** All of the file. */
  readonly whole: Readonly<Record<string, unknown>>;
  /** The part of it that describes a decoder. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The same for a multimodal model; null: the whole is a decoder. */
  readonly part: TextPart | null;
  readonly spec: DecoderSpec;
}

async function readDescription(dir: string): Promise<Description> {
  const configPath = join(dir, "config.json");
  await requireConfigFile(dir, configPath);
  const whole = (await readJson(configPath, sizeLimits.settings)) as Readonly<Record<string, unknown>>;
  const config = decoderConfig(whole, configPath);
  const part = textPartOf(whole, configPath);
  return { configPath, whole, config, part, spec: specFromConfig(config, configPath) };
}

/**
 * The decoder that a folder's config.json describes, before anything is known of its weights, which may decide whether
 * the head is tied. Throws inputError like `openCheckpoint`, as far as config.json shows it.
 */
export async function describedIn(dir: string): Promise<DecoderSpec> {
  await requireFolder(dir);
  const save = await megatronFolder(dir);
  if (save === null) return (await readDescription(dir)).spec;
  const checkpoint = await openMegatron(dir);
  await checkpoint.close();
  return checkpoint.spec;
}

/** Splits off what belongs to the other parts of a multimodal model, and says that it is left. */
function textAlone(
  names: readonly string[],
  { of, leftOut }: TextPart,
  family: string,
): readonly [rest: string[], notes: string[]] {
  const isTower = (name: string): boolean => !/^model\.layers\.\d+\./.test(name);
  const towers = names.filter(isTower);
  const parts = [...new Set(towers.map((name) => name.replace(/^model\./, "").split(".")[0] ?? name))];
  const left =
    towers.length === 0 ? "" : `; ${towers.length} tensors of its other parts (${parts.join(", ")}) are left out`;
  const note = `of this ${of} model the text part is read, as ${family}${left}`;
  return [names.filter((name) => !isTower(name)), [note, ...leftOut]];
}

async function requireFolder(dir: string): Promise<void> {
  if (!(await withFsErrors(dir, "open model folder", () => exists(dir)))) {
    const previous = previousName(resolve(dir));
    const hint = (await exists(previous))
      ? `an interrupted replacement left the old version in ${basename(previous)} beside it; rename that back`
      : undefined;
    if (hint === undefined) await requireNoDeadLink(dir);
    throw inputError("no such folder", { where: dir, hint });
  }
  const info = await withFsErrors(dir, "open model folder", () => stat(dir));
  if (!info.isDirectory()) throw inputError(`this is ${kindOf(info)}, expected a model folder`, { where: dir });
}

async function requireConfigFile(dir: string, configPath: string): Promise<void> {
  if (await exists(configPath)) return;
  await requireNoDeadLink(configPath);
  const isAdapter = await exists(join(dir, adapterConfigFile));
  const foreign = isAdapter ? null : await foreignFolder(dir);
  if (foreign !== null) throw foreign;
  const hint = isAdapter
    ? "this is an adapter, which goes behind its model: MODEL+ADAPTER"
    : "expected a Hugging Face model folder";
  throw inputError("folder has no config.json", { where: dir, hint });
}

/** The tensors of a folder by the names of the decoder's family; one without other names is itself. */
function underFamilyNames(
  spec: DecoderSpec,
  tensors: ReadonlyMap<string, ReadableTensor>,
  dir: string,
): ReadonlyMap<string, ReadableTensor> {
  const renamed = familyNames(spec, tensors, dir);
  if (renamed === null) return tensors;
  const byName = new Map<string, ReadableTensor>();
  for (const [name, tensor] of tensors) {
    const familyName = renamed.get(name) ?? name;
    if (byName.has(familyName)) throw inputError(`two tensors could be ${familyName}`, { where: dir });
    byName.set(familyName, tensor);
  }
  return byName;
}

function requireTensors(
  names: ReadonlySet<string>,
  tensors: ReadonlyMap<string, ReadableTensor>,
  dir: string,
  spec: DecoderSpec,
  describedBy = "config.json",
): void {
  const missing = [...names].filter((name) => !tensors.has(name));
  const [first] = missing;
  if (first === undefined) return;
  const more = missing.length === 1 ? "" : ` and ${missing.length - 1} more`;
  throw inputError(
    `tensor ${first}${more} missing, ${describedBy} (${spec.family}, ${spec.layers.length} layers) asks ` +
      `for ${names.size}`,
    {
      where: dir,
      hint: "the weights do not belong to this config.json, or the download is incomplete",
    },
  );
}

/** What has been found out about a folder, without its weights. */
interface OpenFolder {
  readonly dir: string;
  readonly spec: DecoderSpec;
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, ReadableTensor>;
  /** Names of tensors that no slot needs, sorted. */
  readonly others: readonly string[];
  readonly sources: ReadonlyMap<string, SlotSource>;
  readonly files: readonly RangeFile[];
}

function checkpointOf({ dir, spec, config, tensors, others, sources, files }: OpenFolder): Checkpoint {
  const sourceOf = (slotKey: string): SlotSource => {
    const source = sources.get(slotKey);
    if (source === undefined) throw new Error(`no slot ${slotKey} in ${dir}`);
    return source;
  };
  const readRectangle = openRectangleReader();
  return {
    dir,
    adapter: null,
    spec,
    config,
    tensors,
    unused: others.filter((name) => !isActivationScale(name)),
    notes: notesOn(others.filter(isActivationScale)),
    dtype: dominantDtype(sources.values()),
    async readBytes(slotKey) {
      return readSlot(sourceOf(slotKey));
    },
    dtypeOf: (slotKey) => sourceOf(slotKey).dtype,
    storedDtypeOf: (slotKey) => sourceOf(slotKey).dtype,
    readRectangle: (rectangle, into) => readRectangle(sourceOf(rectangle.key).parts, rectangle, into),
    async readFloat32(slotKey) {
      const { dtype, bytes } = await readSlot(sourceOf(slotKey));
      return toFloat32(dtype, bytes);
    },
    async readRows(slotKey, start, count, memory) {
      return readSlotRows(sourceOf(slotKey), { start, count }, memory, readRectangle);
    },
    async close() {
      await Promise.all(files.map((file) => file.close()));
    },
  };
}

/** The precision that most elements are read in. */
function dominantDtype(sources: Iterable<SlotSource>): FloatDtype {
  const counts = new Map<FloatDtype, number>();
  for (const { slot, dtype } of sources) counts.set(dtype, (counts.get(dtype) ?? 0) + elements(slot.shape));
  return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

/** Files carry keys of many programs; one that nobody is known to read may still have meant something to its writer. */
function noteOnKeys(keys: readonly string[]): string[] {
  if (keys.length === 0) return [];
  const listed = keys.length <= 5 ? keys.join(", ") : `${keys.slice(0, 5).join(", ")}, ...`;
  const [them, are] = keys.length === 1 ? ["key", "is"] : ["keys", "are"];
  return [`config.json has ${keys.length} ${them} that ${are} read neither here nor by transformers: ${listed}`];
}

function notesOn(activationScales: readonly string[]): string[] {
  const [first] = activationScales;
  if (first === undefined) return [];
  const count =
    activationScales.length === 1 ? "1 tensor holds a scale" : `${activationScales.length} tensors hold scales`;
  return [`${count} of activations (such as ${first}), not read: activations are not quantized here`];
}
