/** Experts of a model as `upcycle experts --json` has measured them. */
import type { JSX } from "preact";
import { compact, fixed, significant } from "../../base/format.js";
import { answerAddress } from "../data/addresses.js";
import type { ExpertFile } from "../data/expert-types.js";
import { cosineScale, loadScale } from "../../report/page/heat-map.js";
import { deadCount, deadWords, togetherScale } from "./expert-words.js";
import { HeatLegend, HeatMap } from "./heat.js";
import { useAnswer } from "./hooks.js";
import { AsCommand, Choice, Waiting } from "./parts.js";
import { goTo, setting, treeVersion } from "./state.js";

/** The view. */
export function FileView({ name }: { readonly name: string }): JSX.Element {
  const { data, error } = useAnswer<ExpertFile>(answerAddress("/api/expert-file", [["name", name]]), treeVersion.value);
  if (data === null) return <Waiting error={error} what={name} />;
  const { layers, model, tokens, texts } = data;
  const chosen = Math.min(Number(setting("layer") || 0), Math.max(0, layers.length - 1));
  const layer = layers[chosen];
  const dead = layers.reduce((sum, one) => sum + one.dead.length, 0);
  return (
    <>
      <h1>Experts of {model}</h1>
      <p class="answer-line">
        <b>{deadCount(dead)}</b> on {compact(tokens)} tokens of {texts.join(", ")}
        {dead > 0 && `: ${deadWords(layers.map((one) => ({ layer: one.layer, experts: one.dead })))}`}.
      </p>
      <HeatLegend scale={loadScale} />
      <HeatMap
        title="Load by layer and expert"
        values={layers.map(({ shares }) => shares)}
        rowName={(row) => `layer ${layers[row]?.layer}`}
        columnName={(column) => `expert ${column}`}
        scale={loadScale}
        format={(value) => significant(value, 3)}
      />
      {layer !== undefined && (
        <>
          <h2>Layer {layer.layer}</h2>
          <div class="controls">
            <Choice
              label="MoE layer"
              value={String(chosen)}
              options={layers.map((one, i) => [String(i), `layer ${one.layer}`] as const)}
              onChange={(value) => goTo("experts", "", { file: name, layer: value })}
            />
            <span class="muted">
              router entropy {fixed(layer.entropy, 3)} nats, {significant(100 * layer.relativeEntropy, 3)} % of the most
            </span>
          </div>
          <div class="charts">
            <div>
              <HeatLegend scale={cosineScale} />
              <HeatMap
                title={`Similarity of the experts' weights, layer ${layer.layer}`}
                values={layer.weights}
                rowName={(row) => String(row)}
                columnName={(column) => `expert ${column}`}
                scale={cosineScale}
                format={(value) => fixed(value, 3)}
                square
              />
            </div>
            {layer.coactivation !== null && (
              <div>
                <HeatLegend scale={togetherScale} />
                <HeatMap
                  title={`Experts chosen together, layer ${layer.layer}`}
                  values={layer.coactivation}
                  rowName={(row) => String(row)}
                  columnName={(column) => `expert ${column}`}
                  scale={togetherScale}
                  format={(value) => significant(value, 3)}
                  square
                />
              </div>
            )}
          </div>
        </>
      )}
      {layers.some(({ parent }) => parent !== null) && (
        <>
          <HeatLegend scale={cosineScale} />
          <HeatMap
            title="Similarity of each expert to its part of the parent"
            values={layers.map(({ parent }) => parent ?? [])}
            rowName={(row) => `layer ${layers[row]?.layer}`}
            columnName={(column) => `expert ${column}`}
            scale={cosineScale}
            format={(value) => fixed(value, 4)}
          />
        </>
      )}
      <AsCommand addresses={[answerAddress("/api/expert-file", [["name", name]])]} />
    </>
  );
}
