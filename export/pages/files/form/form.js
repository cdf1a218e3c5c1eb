// The page: a field for every feature on the left, classes or numbers on the right.

import { $, ask, bundle, closeToPython, element, inTurn, page, parted, percent, say, showAnswers, start, unpack } from "./page.js";

const { columns, names, holds, scaling } = bundle.table;
const [count] = bundle.input.shape;
const examples = parted(unpack("float32", bundle.golden.examples), count);

const told = (value) => (Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(5))));

/** Returns the decimal of fewest digits that is this float32 again. */
const shortest = (value) => {
  const digits = [6, 7, 8, 9].find((count) => Math.fround(Number(value.toPrecision(count))) === value);
  return Number(value.toPrecision(digits));
};

const fields = columns.map((name, i) => {
  const field = element("input", { type: "number", step: "any", required: true, name });
  const usual = scaling ? `${told(scaling.mean[i])} ± ${told(scaling.spread[i])}` : "";
  $("fields").append(element("label", {}, element("span", { textContent: name }), field, element("small", { textContent: usual })));
  return field;
});

const showNumbers = (values) => {
  $("answers").replaceChildren(
    ...values.map((value, i) =>
      element(
        "li",
        {},
        element("span", { className: "name", textContent: names[i] }),
        element("span", { className: "share", textContent: told(value) }),
      ),
    ),
  );
  page.answered = Number(page.answered) + 1;
};

const showBits = (values) => {
  showNumbers(values);
  $("answers").querySelectorAll(".share").forEach((share, i) => (share.textContent = percent(values[i])));
};

const SHOW = { classes: (values) => showAnswers(values, names), bits: showBits, numbers: showNumbers };

/** Asks the model as soon as every field holds a number. */
const answer = async () => {
  const empty = fields.filter((field) => !Number.isFinite(field.valueAsNumber)).map((field) => field.name);
  say(empty.length ? `Not a number yet: ${empty.slice(0, 3).join(", ")}${empty.length > 3 ? ` and ${empty.length - 3} more` : ""}` : "");
  if (!empty.length) SHOW[holds](await ask(Float32Array.from(fields, (field) => field.valueAsNumber)));
};

const fill = (example) => {
  for (const [i, field] of fields.entries()) field.value = shortest(example[i]);
  return inTurn(answer);
};

$("fields").oninput = () => inTurn(answer);
$("fields").onsubmit = (event) => event.preventDefault();
$("examples").replaceChildren(
  ...examples.map((example, i) => {
    const button = element("button", { type: "button", textContent: String(i + 1), ariaLabel: `Golden example ${i + 1}` });
    button.onclick = () => fill(example);
    return element("li", {}, button);
  }),
);
await start({ golden: { examples, same: closeToPython }, again: answer, controls: [] });
if (page.state === "ready") await fill(examples[0]);
