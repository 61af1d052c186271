/** Upcycled models: what each is made of, tensor by tensor, and how much of its parent's function it keeps. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { compact, fixed, percent, significant } from "../../base/format.js";
import { answerAddress } from "../data/addresses.js";
import { csvOf } from "../../report/page/csv.js";
import { shortNames } from "../data/names.js";
import type { ModelDetail, ModelRow, PreservationRow } from "../data/model-types.js";
import { Chart } from "./chart.js";
import { download } from "./download.js";
import { useAnswer } from "./hooks.js";
import { AsCommand, Command, Facts, Go, Table, Waiting } from "./parts.js";
import { place, treeVersion } from "./state.js";
import { Conversions } from "./view-conversions.js";
import { beliefOf, Verdict } from "./view-start.js";

/** The list. */
export function ModelsView(): JSX.Element {
  const { data, error } = useAnswer<{ models: readonly ModelRow[] }>("/api/models", treeVersion.value);
  if (data === null) return <Waiting error={error} what="models" />;
  const labels = shortNames(data.models.map(({ name }) => name));
  return (
    <>
      <h1>Upcycled models</h1>
      <Conversions />
      {data.models.length === 0 ? (
        <p>
          None below this folder. <code>upcycle convert</code> makes one.
        </p>
      ) : (
        <Table
          label="Upcycled models"
          isStacked
          head={["Model", "Recipe", "Parent", "Same function?", "Largest logit difference"]}
          rows={data.models.map((model) => [
            <Go key="go" view="model" name={model.name}>
              {labels.get(model.name)}
            </Go>,
            model.recipe,
            model.parent,
            <Verdict key="verdict" model={model} />,
            model.preservation === null ? "–" : `${significant(model.preservation.relative)} of the largest`,
          ])}
        />
      )}
      <AsCommand addresses={["/api/models"]} />
    </>
  );
}

/** One model. */
export function ModelView(): JSX.Element {
  const { name } = place.value;
  const { data, error } = useAnswer<ModelDetail>(
    answerAddress("/api/model", [["name", name]]),
    `${name} ${treeVersion.value}`,
  );
  if (data === null || data.name !== name) return <Waiting error={error} what={name} />;
  return (
    <>
      <h1>{name}</h1>
      <section aria-labelledby="equal">
        <h2 id="equal">Does it equal its parent, and why is that believed?</h2>
        <p class="answer-line">
          <Verdict model={data} /> {beliefOf(data)}
        </p>
        <p>By its recipe: {data.why}.</p>
        {data.warnings.map((warning) => (
          <p key={warning} class="warn">
            {warning}
          </p>
        ))}
        {data.preservation !== null && <Measured preservation={data.preservation} />}
      </section>
      {data.command !== null && (
        <section aria-labelledby="again">
          <h2 id="again">The command that makes it again</h2>
          <Command words={data.command} />
        </section>
      )}
      <Plan model={data} />
      <AsCommand addresses={[answerAddress("/api/model", [["name", name]])]} />
    </>
  );
}

function Measured({ preservation }: { readonly preservation: PreservationRow }): JSX.Element {
  const { layers, tokens, parentLoss, childLoss, relative, klDivergence, topAgreement } = preservation;
  const x = layers.map(({ layer }) => layer);
  const isExact = layers.every(({ relative: error }) => error === 0);
  return (
    <>
      <Facts
        list={[
          ["Measured on", `${compact(tokens)} tokens`],
          ["Loss of parent and child", `${fixed(parentLoss, 6)} and ${fixed(childLoss, 6)}`],
          ["Largest logit difference", `${significant(relative)} of the largest logit`],
          ["KL divergence", klDivergence === null ? "–" : `${significant(klDivergence)} nats`],
          [
            "Same likeliest token",
            topAgreement === null ? "–" : topAgreement === 1 ? "always" : percent(topAgreement, 4),
          ],
        ]}
      />
      {layers.length > 0 && !isExact && (
        <Chart
          title="Difference of each layer's FFN from the parent's, relative"
          xLabel="layer"
          xFormat={(value) => fixed(value, 0)}
          xIsCount
          lines={[
            { label: "norm of the difference", colour: "var(--arm-2)", x, y: layers.map((layer) => layer.relative) },
            {
              label: "largest difference",
              colour: "var(--arm-3)",
              dash: [6, 4],
              x,
              y: layers.map((layer) => layer.largest),
            },
          ]}
          format={(value) => significant(value, 2)}
          logY
        />
      )}
      {isExact && layers.length > 0 && <p>Every layer's FFN gives the parent's values, to the last bit.</p>}
    </>
  );
}

/** Tensors that are shown at first. */
const fewTensors = 100;

function Plan({ model }: { readonly model: ModelDetail }): JSX.Element {
  const { tensors, title, noPlan, name } = model;
  const [wanted, setWanted] = useState("");
  const [all, setAll] = useState(false);
  const found = tensors.filter((tensor) => `${tensor.name} ${tensor.made}`.includes(wanted));
  const shown = all ? found : found.slice(0, fewTensors);
  return (
    <section aria-labelledby="plan">
      <h2 id="plan">What every tensor is made of</h2>
      {noPlan !== null ? (
        <p class="muted">There is no plan to show: {noPlan}.</p>
      ) : (
        <>
          <p>{title}.</p>
          <div class="controls">
            <label class="filter">
              <span>Find a tensor</span>
              <input type="search" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
            </label>
            <span class="muted" role="status">
              {found.length} tensors
            </span>
            <button
              type="button"
              onClick={() =>
                download(
                  `${name}-plan.csv`,
                  csvOf(
                    ["tensor", "shape", "made of"],
                    tensors.map((one) => [one.name, one.shape, one.made]),
                  ),
                  "text/csv",
                )
              }
            >
              CSV
            </button>
          </div>
          <div class="tall">
            <Table
              label="Tensors"
              isSaved
              head={["Tensor", "Shape", "Made of"]}
              rows={shown.map((tensor) => [
                <code key="name">{tensor.name}</code>,
                tensor.shape,
                <code key="made">{tensor.made}</code>,
              ])}
            />
          </div>
          {shown.length < found.length && (
            <button type="button" onClick={() => setAll(true)}>
              Show all {found.length}
            </button>
          )}
        </>
      )}
    </section>
  );
}
