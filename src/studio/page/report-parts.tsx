/** What the parts of reports that need a script have in common: where they are put, and a choice of a few words. */
import { render, type ComponentChildren, type JSX } from "preact";

/** The parts of a report by the name in `data-island` of the element that each is put into. */
export type Islands = Readonly<Record<string, JSX.Element | null>>;

/** Puts parts into the places of `root` that name them, or draws them anew where they are there already. */
export function mount(root: ParentNode, islands: Islands): void {
  for (const place of root.querySelectorAll<HTMLElement>("[data-island]")) {
    const part = islands[place.dataset["island"] ?? ""];
    if (part !== undefined) render(part, place);
  }
}

/** Takes the parts away, with all that they listen to. */
export function unmount(root: ParentNode): void {
  for (const place of root.querySelectorAll<HTMLElement>("[data-island]")) render(null, place);
}

/** Buttons of reports that copy the text of another element; where the clipboard is closed, they select it. */
export function listenForCopying(say: (text: string) => void = () => undefined): void {
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-copy]") : null;
    const source = button === null ? null : document.getElementById(button.dataset["copy"] ?? "");
    if (button === null || source === null) return;
    const done = (word: string): void => {
      button.textContent = word;
      say("The command is copied.");
      setTimeout(() => {
        button.textContent = "Copy";
      }, 1600);
    };
    navigator.clipboard?.writeText(source.textContent).then(
      () => done("Copied"),
      () => {
        getSelection()?.selectAllChildren(source);
        done("Selected");
      },
    );
  });
}

/** A choice of two words or three, as buttons beside each other. */
export function Toggle<Value extends string>(props: {
  readonly name: string;
  readonly label: string;
  readonly value: Value;
  readonly options: readonly (readonly [value: Value, label: string])[];
  readonly onChange: (value: Value) => void;
}): JSX.Element {
  const { name, label, value, options, onChange } = props;
  return (
    <fieldset class="toggle">
      <legend>{label}</legend>
      {options.map(([one, text]) => (
        <label key={one}>
          <input type="radio" name={name} value={one} checked={one === value} onChange={() => onChange(one)} />
          <span>{text}</span>
        </label>
      ))}
    </fieldset>
  );
}

/** A part with its own controls above it. */
export function Controls({ children }: { readonly children: ComponentChildren }): JSX.Element {
  return <div class="controls">{children}</div>;
}
